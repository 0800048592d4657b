/** Checks of the vbds: XenStore answers, what is to be served is there, and nobody else has it. */

import {
  FrontendError,
  inspectVbd,
  selectVbd,
  type TransportWish,
  type VbdDescription,
} from '../frontend/index.ts';
import { type Check, failed, ok, skipped } from './check.ts';
import { describeDriver, type VbdDriver } from './drivers.ts';
import type { Guest } from './guest.ts';

/** The configuration that is asked about, as far as vbds go. */
export interface WantedVbds {
  /** Names or numbers; empty for the only free one. */
  readonly vbds: readonly string[];
  /** Undefined for as many as do good. */
  readonly queues: number | undefined;
  readonly ringPageOrder: number | undefined;
}

/** One check that XenStore answers, and some for each vbd that is wanted. */
export async function checkVbds(
  guest: Guest,
  wanted: WantedVbds,
  wish: TransportWish,
): Promise<Check[]> {
  const vbds = await guest.vbds();
  const count = vbds.length === 1 ? '1 vbd' : `${vbds.length} vbds`;
  const answer = ok('xenstore', `XenStore answers: this guest has ${count}`);
  if (vbds.length === 0) {
    const mend = "in the host's toolstack: xl block-attach GUEST phy:/dev/... xvdb w";
    return [answer, failed('vbd', 'this guest has no virtual block device', mend)];
  }
  const chosen = wanted.vbds.length === 0 ? [undefined] : wanted.vbds;
  const checks: Check[] = [answer];
  for (const text of chosen) {
    const vbd = choose(vbds, text);
    if ('status' in vbd) {
      checks.push(vbd);
      continue;
    }
    checks.push(checkDriver(vbd, guest.driverOf(vbd)), await checkBackend(guest, vbd, wish));
  }
  return checks;
}

/** The vbd that is meant, whoever drives it; or why there is none. */
function choose(vbds: readonly VbdDescription[], text: string | undefined): VbdDescription | Check {
  // One that is named is looked at, also when somebody drives it.
  const holderless = vbds.map((vbd) => ({ ...vbd, holder: undefined }));
  try {
    const { id } = selectVbd(text === undefined ? vbds : holderless, text);
    const vbd = vbds.find((candidate) => candidate.id === id);
    if (vbd !== undefined) return vbd;
    throw new Error(`vbd ${id} is chosen and not in the list`);
  } catch (error) {
    if (!(error instanceof FrontendError)) throw error;
    if (error.code === 'AMBIGUOUS') {
      return skipped('vbd', `${error.message} \`xenblk-nbd doctor VBD\` looks at one.`);
    }
    const [first] = vbds;
    const mend =
      error.code === 'HELD'
        ? `xenblk-nbd serve ${first?.name} --take-over, for one that nothing uses (see: list)`
        : 'xenblk-nbd list';
    return failed('vbd', error.message, mend);
  }
}

/** Nobody else drives it. */
export function checkDriver(vbd: VbdDescription, driver: VbdDriver): Check {
  const id = `driver-${vbd.name}`;
  const words = `${vbd.name} (${vbd.id}): ${describeDriver(driver)}`;
  switch (driver.kind) {
    case 'free':
    case 'left':
      return ok(id, words);
    case 'process':
      // Our own service is not in its own way.
      if (driver.claimant !== undefined) return ok(id, words);
      return failed(id, words, stopCommand(vbd, driver));
    case 'kernel':
      return failed(
        id,
        words,
        driver.use === undefined
          ? `xenblk-nbd serve ${vbd.name} --take-over`
          : `umount or release ${driver.device ?? vbd.name} first, or choose another vbd`,
      );
  }
}

function stopCommand(vbd: VbdDescription, { processes }: VbdDriver & { kind: 'process' }): string {
  const [only, another] = processes;
  if (only === undefined) return 'sudo xenblk-nbd list, which shows what this user may not see';
  return another === undefined
    ? `systemctl stop xenblk-nbd@${vbd.name}, or kill ${only.pid}`
    : `systemctl stop xenblk-nbd@${vbd.name}; see: ls -l /proc/*/fd | grep gntalloc`;
}

/** What its backend says can be read and used. */
async function checkBackend(
  guest: Guest,
  vbd: VbdDescription,
  wish: TransportWish,
): Promise<Check> {
  const id = `backend-${vbd.name}`;
  const { faults, backendError, limits } = await inspectVbd(guest.store, vbd, wish);
  const complaints = backendError === undefined ? faults : [...faults, `It says: ${backendError}.`];
  if (complaints.length > 0) {
    const mend = `in the host's toolstack: xl block-detach GUEST ${vbd.id}, and attach it again`;
    return failed(id, `${vbd.name}: ${complaints.join(' ')}`, mend);
  }
  const queues = limits?.maxQueues ?? 1;
  return ok(id, `${vbd.name}: its backend offers ${queues === 1 ? '1 ring' : `${queues} rings`}`);
}
