/**
 * The troubles, one function each: what the toolstack, a back end, the host or a signal does to a
 * vbd that is in use. Each resolves when its own part is over; whether the program has recovered by
 * then is its own affair, and the next trouble may come on top.
 *
 * Two rules hold of all of them, as of the real ones: a back end that is said to be finished (at
 * Closed, its directory gone, at InitWait again) has executed the last request it will ever
 * execute, and a directory that is made anew is looked at by a driver that has let go of the old.
 */

import { StopMode } from '../../src/sim/queue-runner.ts';
import type { History } from './history.ts';
import { LIES } from './liar.ts';
import type { TroubleName } from './trouble-names.ts';

type Trouble = (history: History) => Promise<void>;

const SHORT_MS = [0, 0.1, 2, 50];

function pause({ scheduler }: History): Promise<void> {
  return scheduler.sleep(
    scheduler.random.pick(SHORT_MS) * (0.5 + scheduler.random.u32() / 2 ** 32),
  );
}

/** The cache of the disk is lost, and some of what is in it. */
function loseCache(history: History): void {
  const { disk } = history.environment;
  history.model.crash();
  disk.crash(history.scheduler.random);
}

async function rebind(history: History, mode: StopMode, isReattaching: boolean): Promise<void> {
  const { environment } = history;
  // A driver that takes up the old ring again may do so while we are giving it back.
  if (isReattaching) environment.isDeferringAllowed = true;
  const { driver } = environment.backend;
  const { node } = environment;
  await driver.unbind(node, mode);
  if (mode === StopMode.POWER_LOSS) loseCache(history);
  await pause(history);
  await driver.bind(node, isReattaching);
}

/** A directory was made; resolves when the driver has seen it, as `xl` waits for it. */
async function created({ environment }: History): Promise<void> {
  await environment.backend.driver.scan();
}

async function attach(history: History): Promise<void> {
  await history.environment.toolstack.plug(history.environment.vbd);
  await created(history);
}

/**
 * The back end's directory goes and is made anew. Between the two we may still say Connected, and
 * the new device then maps the old ring, until we have closed it.
 */
async function backendGone(history: History): Promise<void> {
  const { environment } = history;
  environment.isDeferringAllowed = true;
  const { toolstack, backend, vbd } = environment;
  await toolstack.removeBackend(vbd);
  await backend.driver.scan();
  await pause(history);
  await toolstack.restoreBackend(vbd);
  await created(history);
}

async function resize(history: History, sizeBytes: number): Promise<void> {
  const { environment } = history;
  const { backend, node, rings } = environment;
  environment.backendDisk = { ...environment.backendDisk, sizeBytes };
  await rings.setDisk(1, -1, sizeBytes / 512);
  await backend.driver.run(async () => {
    await backend.device(node)?.resize(environment.backendDisk);
  });
}

export const TROUBLES: Readonly<Record<TroubleName, Trouble>> = {
  'force-closing': ({ environment }) => environment.forceState('5'),

  /** Nobody can tell this from a back end that is finished; the kernel keeps the pages for it. */
  async 'force-closed'({ environment }) {
    environment.isDeferringAllowed = true;
    await environment.forceState('6');
  },

  rebind: (history) =>
    rebind(history, history.scheduler.random.pick([StopMode.CRASH, StopMode.DRAIN]), false),

  /** A back end that comes back with another number of queues. */
  'other-queues'(history) {
    const { environment, scheduler } = history;
    const { backendDisk } = environment;
    const now = backendDisk.features.queues;
    const others = [1, 2, 3].filter((queues) => queues !== now);
    const features = { ...backendDisk.features, queues: scheduler.random.pick(others) };
    environment.backendDisk = { ...backendDisk, features };
    return rebind(history, scheduler.random.pick([StopMode.CRASH, StopMode.DRAIN]), false);
  },

  /**
   * Only a ring whose requests were all answered can be taken up again: the responses of a ring lie
   * on top of its requests.
   */
  'rebind-reattach': (history) => rebind(history, StopMode.DRAIN, true),

  'power-loss': (history) => rebind(history, StopMode.POWER_LOSS, false),

  /** The driver dies, what it had taken is still executed, and then the cache is lost. */
  async 'crash-late'(history) {
    const { environment } = history;
    await environment.backend.driver.unbind(environment.node, StopMode.CRASH);
    loseCache(history);
    await backendGone(history);
  },

  async 'detach-attach'(history) {
    const { environment } = history;
    await environment.toolstack.unplug(environment.vbd);
    await environment.backend.driver.scan();
    await pause(history);
    if (!history.isEnded) await attach(history);
  },

  async 'force-detach-attach'(history) {
    const { environment } = history;
    environment.isDeferringAllowed = true;
    await environment.toolstack.removeBoth(environment.vbd);
    await environment.backend.driver.scan();
    await pause(history);
    if (!history.isEnded) await attach(history);
  },

  async 'backend-gone'(history) {
    const { environment } = history;
    await environment.backend.driver.unbind(environment.node, StopMode.CRASH);
    await backendGone(history);
  },

  /** The directory goes first, and the driver notices later. */
  'backend-gone-late': backendGone,

  /** The disk is served by another domain from now on. The old one may go on for a while. */
  async 'move-backend'(history) {
    const { environment, scheduler } = history;
    const { toolstack, vbd: old, backend: oldBackend, node } = environment;
    environment.isDeferringAllowed = true;
    const next = { ...old, backendDomid: environment.otherBackendDomid };
    const removeOld = async (): Promise<void> => {
      await oldBackend.driver.unbind(node, StopMode.CRASH);
      await toolstack.removeBackend(old);
      await oldBackend.driver.scan();
    };
    const moveKeys = async (): Promise<void> => {
      await environment.admit([old.backendDomid, next.backendDomid]);
      environment.vbd = next;
      await toolstack.restoreBackend(next);
      await created(history);
    };
    if (scheduler.random.chance(0.3)) {
      await removeOld();
      await pause(history);
      await moveKeys();
    } else {
      const removed = scheduler.random.chance(0.5) ? removeOld() : undefined;
      await moveKeys();
      await pause(history);
      await (removed ?? removeOld());
    }
  },

  async restore(history) {
    const { environment } = history;
    const { toolstack, backend, node, vbd, guest, grants, channels, xenstored } = environment;
    if (!(await history.pauseGuest())) return;
    await backend.driver.unbind(node, StopMode.CRASH);
    await toolstack.removeBoth(vbd);
    await backend.driver.scan();
    await toolstack.destroyDomain(vbd.guestDomid);
    grants.forgetAll();
    channels.makeStale(vbd.guestDomid);
    const guestDomid = vbd.guestDomid + 1;
    guest.restore(guestDomid);
    await toolstack.createDomain(guestDomid, 'guest');
    xenstored.introduce(guestDomid);
    environment.vbd = { ...vbd, guestDomid };
    await attach(history);
    history.resumeGuest(guestDomid);
  },

  async checkpoint(history) {
    if (!(await history.pauseGuest())) return;
    await pause(history);
    history.resumeGuest(undefined);
  },

  async grow(history) {
    const { environment, scheduler } = history;
    const { maxBytes } = environment.plan;
    const { sizeBytes } = environment.backendDisk;
    const more = 4096 * (1 + scheduler.random.below((maxBytes - sizeBytes) / 4096 + 1));
    if (sizeBytes + more <= maxBytes) await resize(history, sizeBytes + more);
  },

  async shrink(history) {
    const { environment, scheduler } = history;
    const { sizeBytes } = environment.backendDisk;
    const less = 4096 * (1 + scheduler.random.below(sizeBytes / 4096 / 2));
    history.mayFail = true;
    await resize(history, sizeBytes - less);
  },

  /** Sizes that cannot be; the old one is to be kept. */
  async 'absurd-size'(history) {
    const { environment, scheduler } = history;
    const { process } = history;
    const { frontend } = process ?? {};
    // Over InitWait, a state of 4 would hide a restart.
    const isConnected = environment.backend.device(environment.node)?.isConnected === true;
    const isSettled = isConnected && process?.isServing === true && frontend?.state === 'connected';
    if (!isSettled || frontend.attachment?.backendPath !== environment.backendPath) return;
    const size = scheduler.random.pick(['0', '-1', 'many', '99999999999999999999', '']);
    await environment.writeBackendKey('sectors', size);
    await environment.writeBackendKey('state', '4');
    await scheduler.sleep(5);
    await environment.writeBackendKey('sectors', String(environment.backendDisk.sizeBytes / 512));
    await scheduler.sleep(5);
  },

  async slow({ environment, scheduler }) {
    environment.faults.delayMs = scheduler.random.pick([20, 200]);
    await scheduler.sleep(20);
    environment.faults.delayMs = environment.plan.delayMs;
  },

  async errors(history) {
    const { environment, scheduler } = history;
    history.mayFail = true;
    environment.faults.errorRate = 0.2;
    await scheduler.sleep(5 * environment.plan.tempoMs * 100);
    environment.faults.errorRate = environment.plan.errorRate;
  },

  /** kill -9, and the next process. */
  async kill(history) {
    // One that is about to end with its vbd has no successor.
    if (!history.plan.isReturnAwaited && history.process?.isServing !== true) return;
    history.killProcess();
    await pause(history);
    await history.startProcess();
  },

  async lie(history) {
    const { environment, scheduler } = history;
    const liars = environment.rings.liars();
    if (liars.length === 0) return;
    const liar = scheduler.random.pick(liars);
    const lie = scheduler.random.pick(LIES);
    scheduler.trace('trouble', `the back end says: ${lie}`);
    history.hasLied = true;
    liar.lie(lie);
    environment.rings.publishLies();
    await scheduler.sleep(1_000);
    history.expectNoticed(liar);
  },

  async unplug(history) {
    const { environment, scheduler } = history;
    history.isUnplugged = !environment.plan.isReturnAwaited;
    await environment.toolstack.unplug(environment.vbd);
    await environment.backend.driver.scan();
    if (environment.plan.isReturnAwaited && !history.isEnded) {
      await scheduler.sleep(3_000);
      await attach(history);
    }
  },
};
