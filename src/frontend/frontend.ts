/**
 * A vbd's front end: drives the life cycle of life-cycle.ts over XenStore and holds what the
 * present connection needs of the host.
 *
 * One loop does everything, one step at a time: look at XenStore (observation.ts), decide
 * (interpret.ts), take the step (life-cycle.ts), act (`#enter`), look again. Watches, timers and
 * the owner only wake it. So no two actions interleave, and a merged or late watch event costs a
 * look and nothing else.
 *
 * What holds: pages and event channels of a connection are given back, and `initialising` is
 * entered, only once the old connection is known to be finished and the owner has let go of it.
 */

import assert from 'node:assert/strict';
import type { Watch } from 'xenstore-client';
import { XenbusState } from '../blkif/index.ts';
import type { Attachment, DetachReason } from './attachment.ts';
import { parseResize, readBackendError, readDisk, readTransportLimits } from './backend-keys.ts';
import { type Clock, systemClock } from './clock.ts';
import { Connection } from './connection.ts';
import { Deferred } from './deferred.ts';
import { FrontendError } from './errors.ts';
import { heldError, isStoreLost, refusedError, timeoutError, toFrontendError } from './failures.ts';
import { HeldConnection } from './held-connection.ts';
import { type Goal, interpret, type Link } from './interpret.ts';
import { type FrontendEvent, type FrontendState, isFinal, transition } from './life-cycle.ts';
import { type FrontendLog, silentLog } from './log.ts';
import { type Observation, observe } from './observation.ts';
import {
  DEFAULT_TIMEOUTS,
  type FrontendEnd,
  type FrontendEvents,
  type FrontendOptions,
  type FrontendTimeouts,
} from './options.ts';
import { retryPauseMs } from './retry-pause.ts';
import {
  chooseTransport,
  describeTransport,
  PLAIN_TRANSPORT,
  type TransportChoice,
} from './transport-choice.ts';
import { VbdNode } from './vbd-node.ts';
import { WakeUp } from './wake-up.ts';

/** First connections that may end in the back end closing again. */
const FIRST_ATTEMPTS = 3;

/** Events that end a connection, and what the owner is told. Closing on request is not told. */
const DETACH_REASONS: Readonly<Partial<Record<FrontendEvent, DetachReason>>> = {
  backendClosed: 'backend-closed',
  backendRestarted: 'backend-restarted',
  backendReset: 'backend-gone',
  backendGone: 'backend-gone',
  unpluggedForGood: 'vbd-gone',
  vbdGone: 'vbd-gone',
  vbdReset: 'vbd-reset',
  vbdResetOpen: 'vbd-reset',
  restored: 'guest-restored',
  givenUp: 'given-up',
};

/** Finds the vbd's back end and connects to it. See {@link Frontend.attach}. */
export async function connectVbd(options: FrontendOptions): Promise<Frontend> {
  const frontend = new Frontend(options);
  await frontend.attach();
  return frontend;
}

export class Frontend {
  readonly #options: FrontendOptions;
  readonly #events: FrontendEvents;
  readonly #timeouts: FrontendTimeouts;
  readonly #clock: Clock;
  readonly #log: FrontendLog;
  readonly #node: VbdNode;
  readonly #wakeUp: WakeUp;
  readonly #held: HeldConnection;
  readonly #attached = new Deferred<Attachment>();
  readonly #ended = new Deferred<FrontendEnd>();

  #state: FrontendState = 'idle';
  #goal: Goal = 'serve';
  #failure: FrontendError | undefined;
  #link: Link | undefined;
  #attachment: Attachment | undefined;
  #wasRestored = false;
  #knownSectors: string | undefined;
  #isDrained = false;
  #drainReason: DetachReason = 'backend-closing';
  /** Attempts since the last connection stood. */
  #attempt = 0;
  #retryAtMs = 0;
  #stateDeadlineMs = Number.POSITIVE_INFINITY;
  #recoveryDeadlineMs = Number.POSITIVE_INFINITY;
  readonly #watches: Watch[] = [];
  #backendWatch: Watch | undefined;

  constructor(options: FrontendOptions) {
    this.#options = options;
    this.#events = options.events ?? {};
    this.#timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLog;
    this.#node = new VbdNode(options.store, options.vbd.path);
    this.#wakeUp = new WakeUp(this.#clock);
    this.#held = new HeldConnection(this.#events);
  }

  /** Where in its life it stands, for the log and the status page. */
  get state(): FrontendState {
    return this.#state;
  }

  /** The present connection, or the last one; undefined before the first. */
  get attachment(): Attachment | undefined {
    return this.#attachment;
  }

  /** Resolves when the life is over, as {@link FrontendEvents.ended} tells. Never rejects. */
  get ended(): Promise<FrontendEnd> {
    return this.#ended.promise;
  }

  /**
   * Connects, from whatever states an earlier front end left behind. To be called once; after that
   * the front end lives by itself, and recovers by itself, until {@link close}.
   *
   * @throws FrontendError when that fails within the bounded waits; the vbd is then left at Closed,
   *   unless somebody else drives it.
   */
  async attach(): Promise<Attachment> {
    assert.equal(this.#state, 'idle', 'A front end attaches once.');
    const { signal } = this.#options;
    const abort = (): void => this.#abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      if (signal?.aborted === true) {
        this.#abort();
      }
      void this.#live();
      return await this.#attached.promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Takes the vbd to Closed, ready for the next front end, and ends. The owner must have let go of
   * the rings before. Bounded; resolves in any case, also when called again.
   */
  async close(): Promise<FrontendEnd> {
    if (this.#state === 'idle') {
      this.#end({ reason: 'closed', error: undefined, isBackendFinished: true });
    } else if (this.#goal === 'serve') {
      this.#goal = 'close';
      this.#held.leave();
      this.#startWait(this.#state);
      this.#wakeUp.poke();
    }
    return await this.#ended.promise;
  }

  #abort(): void {
    const error = new FrontendError('ABORTED', `Connecting to ${this.#name} was cancelled.`, {
      cause: this.#options.signal?.reason,
    });
    this.#fail(error);
    // XenStore may be what does not answer: the caller does not wait for the clean-up.
    this.#attached.reject(error);
  }

  get #name(): string {
    return this.#options.vbd.name;
  }

  /** The loop, to the end of the life. */
  async #live(): Promise<void> {
    try {
      this.#watches.push(await this.#watch(this.#node.path), await this.#watch('domid'));
      while (!isFinal(this.#state)) {
        await this.#turn();
      }
    } catch (error) {
      await this.#die(error);
    }
    for (const watch of [...this.#watches, this.#backendWatch]) {
      await watch?.close();
    }
  }

  /** One look, and a step or a sleep. */
  async #turn(): Promise<void> {
    this.#wakeUp.beginLook();
    const { store, isReturnAwaited } = this.#options;
    const observation = await observe(store, this.#node.path, this.#link?.backend.path);
    const nowMs = this.#clock.nowMs();
    if (nowMs >= this.#recoveryDeadlineMs && this.#goal === 'serve') {
      this.#fail(timeoutError(this.#name, 'did not connect again', observation, undefined));
    }
    const event = interpret({
      state: this.#state,
      observation,
      link: this.#link,
      goal: this.#goal,
      wasConnected: this.#attachment !== undefined,
      isReturnAwaited: isReturnAwaited ?? true,
      isDrained: this.#isDrained,
      isTimeUp: nowMs >= this.#stateDeadlineMs,
      isRetryDue: nowMs >= this.#retryAtMs,
      knownSectors: this.#knownSectors,
    });
    if (event !== undefined) {
      await this.#step(event, observation);
      return;
    }
    const isPausing = this.#state === 'finishing' && nowMs < this.#retryAtMs;
    await this.#wakeUp.sleep(
      Math.min(
        nowMs >= this.#stateDeadlineMs ? Number.POSITIVE_INFINITY : this.#stateDeadlineMs,
        isPausing ? this.#retryAtMs : Number.POSITIVE_INFINITY,
        this.#goal === 'serve' ? this.#recoveryDeadlineMs : Number.POSITIVE_INFINITY,
      ),
    );
  }

  /** Takes one step. A failure of an action becomes the goal to fail, and the life goes on. */
  async #step(event: FrontendEvent, observation: Observation): Promise<void> {
    const from = this.#state;
    const { to, finishedBecause } = transition(from, event);
    this.#log.debug(`${this.#name}: ${from} -> ${to} (${event}).`);
    if (event === 'restored') {
      this.#wasRestored = true;
      this.#held.restore();
    }
    if (finishedBecause !== undefined) {
      this.#held.finish(finishedBecause);
    }
    this.#leave(from, event, to);
    this.#state = to;
    this.#startWait(to);
    try {
      await this.#judge(from, event, observation);
      await this.#enter(to, event, observation);
    } catch (error) {
      this.#failBy(error);
    }
  }

  /** Tells the owner that a connection is over. */
  #leave(from: FrontendState, event: FrontendEvent, to: FrontendState): void {
    if (from !== 'connected' && from !== 'draining') {
      return;
    }
    if (to === 'connected' || to === 'draining') {
      return;
    }
    if (this.#attachment !== undefined && this.#recoveryDeadlineMs === Number.POSITIVE_INFINITY) {
      this.#recoveryDeadlineMs = this.#clock.nowMs() + this.#timeouts.reconnectMs;
    }
    const reason = DETACH_REASONS[event] ?? this.#drainReason;
    if (this.#held.isInUse) {
      this.#log.warn(`${this.#name}: the connection is over (${reason}).`);
    }
    this.#held.detach(reason);
  }

  /** Turns events that mean a failure into one. */
  async #judge(from: FrontendState, event: FrontendEvent, seen: Observation): Promise<void> {
    if (event === 'timedOut' && (from === 'initialising' || from === 'initialised')) {
      this.#fail(timeoutError(this.#name, 'did not connect', seen, await this.#readTold()));
    } else if (event === 'timedOut' && from === 'absent') {
      this.#fail(timeoutError(this.#name, 'did not appear', seen, undefined));
    } else if (event === 'timedOut' && from === 'finishing') {
      this.#fail(timeoutError(this.#name, 'did not close', seen, await this.#readTold()));
    } else if (event === 'backendRefused') {
      const error = refusedError(this.#name, seen, await this.#readTold());
      if (this.#attachment === undefined) {
        this.#fail(error);
      } else {
        this.#log.warn(`${error.message} It is tried again.`);
      }
    }
  }

  /** What a state begins with. */
  async #enter(to: FrontendState, event: FrontendEvent, seen: Observation): Promise<void> {
    switch (to) {
      case 'initialising':
        return await this.#initialise(seen);
      case 'initialised':
        return await this.#offer(seen);
      case 'connected':
        return event === 'resized' ? this.#resize(seen) : await this.#connect();
      case 'draining':
        return this.#drain(event);
      case 'closing':
        if (event === 'attachStale' || event === 'returnedOpen') {
          await this.#linkTo(seen);
        }
        await this.#node.switchState(XenbusState.Closing);
        return;
      case 'finishing':
        this.#retryAtMs = this.#clock.nowMs() + retryPauseMs(this.#attempt);
        await this.#node.switchState(XenbusState.Closed);
        return;
      case 'absent':
        return await this.#waitForReturn(event, seen);
      case 'closed':
      case 'failed':
        return await this.#finish(event);
      case 'idle':
        return;
      default:
        return to satisfies never;
    }
  }

  /** Begins a connection: nothing is left of the last one, and our state says so. */
  async #initialise(seen: Observation): Promise<void> {
    assert(this.#held.isFinished, 'A connection was begun before the last one was finished.');
    await this.#held.release();
    await this.#linkTo(seen);
    await this.#refuseIfHeld();
    this.#attempt++;
    if (this.#attachment === undefined && this.#attempt > FIRST_ATTEMPTS) {
      this.#fail(refusedError(this.#name, seen, await this.#readTold()));
      return;
    }
    await this.#node.reset(XenbusState.Initialising);
  }

  /** Grants rings, binds channels, and tells the back end. */
  async #offer(seen: Observation): Promise<void> {
    const { store, host, want, abi, viewMemory } = this.#options;
    const link = this.#link;
    if (link === undefined) {
      return;
    }
    await this.#refuseIfHeld();
    const limits =
      seen.backendState === XenbusState.Initialised
        ? PLAIN_TRANSPORT
        : await readTransportLimits(store, link.backend.path);
    const wanted = chooseTransport(want, limits);
    const connection = Connection.open(host, link.backend.domid, abi, wanted, viewMemory);
    this.#held.hold(connection);
    this.#logTransport(wanted, connection.transport);
    const neverTold = 'the back end was never told of it';
    try {
      const queues = connection.queues.map(({ ring, eventChannel }) => ({
        ringGrefs: ring.grefs,
        port: eventChannel.port,
      }));
      if (!(await this.#node.offer({ abi, isPersistent: want.isPersistent, queues }))) {
        this.#held.finish(neverTold);
      }
    } catch (error) {
      // A transaction that failed changed nothing; one whose answer was lost may have.
      if (!isStoreLost(error)) {
        this.#held.finish(neverTold);
      }
      throw error;
    }
  }

  /** Both ends are ready: reads the disk, which is told only now, and hands the rings out. */
  async #connect(): Promise<void> {
    const { store, isSectorUnitTrusted, vbd, abi, want } = this.#options;
    const link = this.#link;
    const connection = this.#held.connection;
    assert(link !== undefined && connection !== undefined, 'Connected to nothing.');
    const { path, domid } = link.backend;
    const { disk, sectors } = await readDisk(store, path, isSectorUnitTrusted ?? false);
    if (!(await this.#node.switchState(XenbusState.Connected))) {
      return;
    }
    const last = this.#attachment;
    const attachment: Attachment = {
      vbd,
      backendId: domid,
      backendPath: path,
      abi,
      disk,
      queues: connection.queues,
      maxIndirectSegments: connection.transport.maxIndirectSegments,
      isPersistent: want.isPersistent && disk.isPersistent,
      generation: (last?.generation ?? 0) + 1,
      areGrantsLost: last !== undefined && (this.#wasRestored || last.backendId !== domid),
    };
    this.#attachment = attachment;
    this.#knownSectors = sectors;
    this.#wasRestored = false;
    this.#attempt = 0;
    this.#recoveryDeadlineMs = Number.POSITIVE_INFINITY;
    this.#held.use();
    this.#log.info(`${this.#name}: connected to ${path}, ${disk.sectors} sectors.`);
    if (last === undefined) {
      this.#attached.resolve(attachment);
    } else {
      this.#events.reattached?.(attachment);
    }
  }

  #resize(seen: Observation): void {
    const last = this.#attachment;
    this.#knownSectors = seen.sectors;
    if (last === undefined || seen.sectors === undefined) {
      return;
    }
    let sectors: number;
    try {
      sectors = parseResize(last.backendPath, seen.sectors, last.disk);
    } catch (error) {
      this.#log.warn(`${toFrontendError(this.#name, error).message} The old size is kept.`);
      return;
    }
    if (sectors !== last.disk.sectors) {
      this.#log.info(`${this.#name}: resized from ${last.disk.sectors} to ${sectors} sectors.`);
      this.#attachment = { ...last, disk: { ...last.disk, sectors } };
      this.#events.resized?.(sectors);
    }
  }

  #drain(event: FrontendEvent): void {
    const isUnplug = event === 'unplugging';
    this.#drainReason = isUnplug ? 'unplugging' : 'backend-closing';
    this.#isDrained = false;
    const generation = this.#attachment?.generation;
    const finish = (): void => {
      // A slow answer to the last drain must not end the next one.
      if (generation === this.#attachment?.generation) {
        this.#isDrained = true;
        this.#wakeUp.poke();
      }
    };
    Promise.resolve(this.#events.backendClosing?.(isUnplug)).then(finish, finish);
  }

  async #waitForReturn(event: FrontendEvent, seen: Observation): Promise<void> {
    await this.#held.release();
    if (event === 'backendGone' && seen.frontendState !== XenbusState.Unknown) {
      // At once: a back end that is made anew while we say Connected maps our old ring and fails.
      await this.#node.reset(XenbusState.Initialising);
    } else if (event === 'unplugged') {
      await this.#node.removeConnectionKeys();
    }
    this.#log.info(`${this.#name}: waiting for the vbd and its back end to come back.`);
  }

  /** Leaves the vbd at Closed without our keys, gives everything back and reports the end. */
  async #finish(event: FrontendEvent): Promise<void> {
    try {
      await this.#node.reset(XenbusState.Closed);
    } catch (error) {
      this.#log.warn(toFrontendError(this.#name, error).message);
    }
    const isBackendFinished = await this.#held.release();
    if (!isBackendFinished) {
      this.#log.warn(
        `${this.#name}: the back end did not confirm the end of the connection; its pages stay ` +
          'granted until this process ends.',
      );
    }
    if (this.#state === 'failed') {
      this.#end({ reason: 'failed', error: this.#failure, isBackendFinished });
    } else {
      const reason = event === 'unpluggedForGood' ? 'unplugged' : 'closed';
      this.#end({ reason, error: undefined, isBackendFinished });
    }
  }

  /** Makes a failure the goal; the life cycle takes the vbd to Closed and then reports it. */
  #fail(error: FrontendError): void {
    if (this.#goal === 'serve') {
      this.#goal = 'fail';
      this.#failure = error;
      this.#startWait(this.#state);
      this.#wakeUp.poke();
    }
  }

  /** After an action that failed. */
  #failBy(error: unknown): void {
    if (isStoreLost(error) || (error instanceof FrontendError && error.code === 'HELD')) {
      throw error;
    }
    const failure = toFrontendError(this.#name, error);
    if (this.#goal !== 'serve') {
      this.#log.warn(failure.message);
    } else if (this.#attachment !== undefined && failure.code === 'HOST') {
      // Pages of the last ring come back when the back end lets go of them: try again.
      this.#log.warn(`${failure.message} It is tried again.`);
      this.#stateDeadlineMs = this.#clock.nowMs();
    } else {
      this.#fail(failure);
    }
  }

  /** The end without a word to XenStore: it is lost, or the vbd is not ours. */
  async #die(error: unknown): Promise<void> {
    this.#state = 'failed';
    this.#held.detach('given-up');
    const failure = toFrontendError(this.#name, error);
    const isBackendFinished = await this.#held.release();
    this.#end({ reason: 'failed', error: this.#failure ?? failure, isBackendFinished });
  }

  #end(end: FrontendEnd): void {
    this.#state = end.reason === 'failed' ? 'failed' : 'closed';
    this.#ended.resolve(end);
    if (this.#attachment === undefined) {
      const gone = new FrontendError(
        'ABORTED',
        `${this.#name} was closed before it was connected.`,
      );
      this.#attached.reject(end.error ?? gone);
    } else {
      this.#events.ended?.(end);
    }
  }

  async #refuseIfHeld(): Promise<void> {
    const holder = await this.#options.holderOf?.(this.#options.vbd.id);
    if (holder !== undefined) {
      throw heldError(this.#name, holder);
    }
  }

  async #readTold(): Promise<string | undefined> {
    const path = this.#link?.backend.path;
    return path === undefined ? undefined : await readBackendError(this.#options.store, path);
  }

  #logTransport(wanted: TransportChoice, granted: TransportChoice): void {
    for (const cut of wanted.cuts) {
      this.#log.info(`${this.#name}: ${cut}`);
    }
    if (granted !== wanted) {
      const { limitPages, source } = this.#options.host.grantBudget();
      this.#log.warn(
        `${this.#name}: ${describeTransport(granted)} instead of ${describeTransport(wanted)}, ` +
          `since only ${limitPages} pages may be granted; raise the limit in ${source}.`,
      );
    }
  }

  #startWait(state: FrontendState): void {
    this.#stateDeadlineMs = this.#clock.nowMs() + this.#waitMs(state);
  }

  #waitMs(state: FrontendState): number {
    switch (state) {
      case 'initialising':
        return this.#timeouts.initWaitMs;
      case 'initialised':
        return this.#timeouts.connectedMs;
      case 'draining':
        return this.#timeouts.drainMs;
      case 'closing':
        return this.#timeouts.closingMs;
      case 'finishing':
        return this.#timeouts.closedMs;
      case 'absent':
        return this.#goal === 'close' ? this.#timeouts.closedMs : this.#timeouts.appearMs;
      case 'idle':
      case 'connected':
      case 'closed':
      case 'failed':
        return Number.POSITIVE_INFINITY;
      default:
        return state satisfies never;
    }
  }

  /** From here on the connection, or the attempt at one, is with the back end that is seen. */
  async #linkTo(seen: Observation): Promise<void> {
    const { backend, domid } = seen;
    const lastPath = this.#link?.backend.path;
    this.#link = backend === undefined ? undefined : { backend, domid };
    if (backend !== undefined && (backend.path !== lastPath || this.#backendWatch === undefined)) {
      const last = this.#backendWatch;
      this.#backendWatch = await this.#watch(backend.path);
      await last?.close();
    }
  }

  async #watch(path: string): Promise<Watch> {
    return await this.#options.store.watch(path, () => this.#wakeUp.poke());
  }
}
