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
import { XenbusState } from '../blkif/index.ts';
import type { Attachment, DetachReason } from './attachment.ts';
import { readBackendError } from './backend-keys.ts';
import { type Clock, systemClock } from './clock.ts';
import { Deadlines } from './deadlines.ts';
import { Deferred } from './deferred.ts';
import { DETACH_REASONS } from './detach-reason.ts';
import { FrontendError } from './errors.ts';
import { heldError, isStoreLost, refusedError, timeoutError, toFrontendError } from './failures.ts';
import { completeConnection, offerConnection } from './handshake.ts';
import { HeldConnection } from './held-connection.ts';
import { type Goal, interpret, type Link } from './interpret.ts';
import { type FrontendEvent, type FrontendState, isFinal, transition } from './life-cycle.ts';
import { type FrontendLog, silentLog } from './log.ts';
import { type Observation, observe } from './observation.ts';
import type { FrontendEnd, FrontendEvents, FrontendOptions } from './options.ts';
import { resizeAttachment } from './resize.ts';
import { DEFAULT_TIMEOUTS, type FrontendTimeouts } from './timeouts.ts';
import { VbdNode } from './vbd-node.ts';
import { VbdWatches } from './vbd-watches.ts';
import { WakeUp } from './wake-up.ts';

/** First connections that may end in the back end closing again. */
const FIRST_ATTEMPTS = 3;

/** What the back end did not do, where the end of a wait is a failure. */
const UNMET: Readonly<Partial<Record<FrontendState, string>>> = {
  absent: 'did not appear',
  initialising: 'did not connect',
  initialised: 'did not connect',
  finishing: 'did not close',
};

/** What XenStore may take for the requests of a close. */
const STORE_MARGIN_MS = 2_000;

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
  readonly #watches: VbdWatches;
  readonly #held: HeldConnection;
  readonly #deadlines: Deadlines;
  readonly #attached = new Deferred<Attachment>();
  readonly #ended = new Deferred<FrontendEnd>();

  #state: FrontendState = 'idle';
  #hasEnded = false;
  #goal: Goal = 'serve';
  #failure: FrontendError | undefined;
  #link: Link | undefined;
  #attachment: Attachment | undefined;
  #wasRestored = false;
  #knownSectors: string | undefined;
  #isDrained = false;
  #drainReason: DetachReason = 'backend-closing';

  constructor(options: FrontendOptions) {
    this.#options = options;
    this.#events = options.events ?? {};
    this.#timeouts = { ...DEFAULT_TIMEOUTS, ...options.timeouts };
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLog;
    this.#node = new VbdNode(options.store, options.vbd.path);
    this.#wakeUp = new WakeUp(this.#clock);
    this.#watches = new VbdWatches(options.store, () => this.#wakeUp.poke());
    this.#held = new HeldConnection(this.#events);
    this.#deadlines = new Deadlines(this.#clock, this.#timeouts);
    // Who waits for the attach sees its failure; when nobody does it is not an error of its own.
    this.#attached.promise.catch(() => undefined);
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
        this.#end({ reason: 'failed', error: this.#failure, isBackendFinished: true });
      } else {
        void this.#live();
      }
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
      this.#deadlines.startWait(this.#state, this.#goal);
      this.#wakeUp.poke();
    }
    // Each wait for the back end is bounded; the answers of XenStore itself are not.
    const boundMs = this.#timeouts.closingMs + this.#timeouts.closedMs + STORE_MARGIN_MS;
    const cancel = this.#clock.startTimer(boundMs, () => {
      this.#end({ reason: 'closed', error: undefined, isBackendFinished: false });
    });
    const end = await this.#ended.promise;
    cancel();
    return end;
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
      await this.#watches.start(this.#node.path);
      while (!isFinal(this.#state)) {
        await this.#turn();
      }
    } catch (error) {
      await this.#die(error);
    }
    await this.#watches.close();
  }

  /** One look, and a step or a sleep. */
  async #turn(): Promise<void> {
    this.#wakeUp.beginLook();
    const { store, isReturnAwaited } = this.#options;
    const observation = await observe(store, this.#node.path, this.#link?.backend.path);
    const { isRecoveryOver, ...due } = this.#deadlines.due();
    if (isRecoveryOver && this.#goal === 'serve') {
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
      knownSectors: this.#knownSectors,
      ...due,
    });
    if (event !== undefined) {
      await this.#step(event, observation);
      return;
    }
    await this.#wakeUp.sleep(this.#deadlines.nextMs(this.#state, this.#goal));
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
    if (event !== 'nudged') {
      this.#deadlines.startWait(to, this.#goal);
    }
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
    this.#deadlines.startRecovery();
    const reason = DETACH_REASONS[event] ?? this.#drainReason;
    if (this.#held.isInUse) {
      this.#log.warn(`${this.#name}: the connection is over (${reason}).`);
    }
    this.#held.detach(reason);
  }

  /** Turns events that mean a failure into one. */
  async #judge(from: FrontendState, event: FrontendEvent, seen: Observation): Promise<void> {
    if (event === 'timedOut') {
      const what = UNMET[from];
      if (what !== undefined) {
        this.#fail(timeoutError(this.#name, what, seen, await this.#readTold()));
      }
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
        if (event !== 'nudged') {
          this.#deadlines.startRetryPause();
        }
        this.#deadlines.startNudgePause();
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
    await this.#linkTo(seen);
    await this.#refuseIfHeld();
    const attempts = this.#deadlines.countAttempt();
    if (this.#attachment === undefined && attempts > FIRST_ATTEMPTS) {
      this.#fail(refusedError(this.#name, seen, await this.#readTold()));
      return;
    }
    // Before anything else that takes time: a back end that is made anew while we say Connected
    // maps the ring that our old keys name.
    await this.#node.reset(XenbusState.Initialising);
    await this.#held.release();
  }

  /** Tells the back end of new rings. */
  async #offer(seen: Observation): Promise<void> {
    const backend = this.#link?.backend;
    if (backend !== undefined) {
      await this.#refuseIfHeld();
      const { backendState } = seen;
      await offerConnection(
        this.#options,
        this.#node,
        this.#held,
        backend,
        backendState,
        this.#log,
      );
    }
  }

  /** Both ends are ready: hands the rings out. */
  async #connect(): Promise<void> {
    const backend = this.#link?.backend;
    const { connection } = this.#held;
    assert(backend !== undefined && connection !== undefined, 'Connected to nothing.');
    const last = this.#attachment;
    const completed = await completeConnection(
      this.#options,
      this.#node,
      connection,
      backend,
      last,
      this.#wasRestored,
    );
    if (completed === undefined || this.#goal !== 'serve') {
      // Gone, or no longer wanted: the next look sees it.
      return;
    }
    const { attachment, sectors } = completed;
    this.#attachment = attachment;
    this.#knownSectors = sectors;
    this.#wasRestored = false;
    this.#deadlines.endRecovery();
    this.#held.use();
    this.#log.info(
      `${this.#name}: connected to ${backend.path}, ${attachment.disk.sectors} sectors.`,
    );
    if (last === undefined) {
      this.#attached.resolve(attachment);
    } else {
      this.#events.reattached?.(attachment);
    }
  }

  #resize(seen: Observation): void {
    this.#knownSectors = seen.sectors;
    const resized = this.#attachment && resizeAttachment(this.#attachment, seen.sectors, this.#log);
    if (resized !== undefined) {
      this.#attachment = resized;
      this.#events.resized?.(resized.disk.sectors);
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
    if (event === 'backendGone' && seen.frontendState !== XenbusState.Unknown) {
      // At once, for the reason given in #initialise.
      await this.#node.reset(XenbusState.Initialising);
    } else if (event === 'unplugged') {
      await this.#node.removeConnectionKeys();
    }
    await this.#held.release();
    this.#log.info(`${this.#name}: waiting for the vbd and its back end to come back.`);
  }

  /** Leaves the vbd at Closed without our keys, gives everything back and reports the end. */
  async #finish(event: FrontendEvent): Promise<void> {
    try {
      const isThere = await this.#node.reset(XenbusState.Closed);
      if (isThere && this.#failure !== undefined) {
        await this.#node.reportError(this.#failure.message);
      }
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
      this.#deadlines.startWait(this.#state, this.#goal);
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
      this.#deadlines.endWait();
    } else {
      this.#fail(failure);
    }
  }

  /** The end without a word to XenStore: it is lost, or the vbd is not ours. */
  async #die(error: unknown): Promise<void> {
    if (this.#hasEnded) {
      return;
    }
    this.#state = 'failed';
    this.#held.detach('given-up');
    const failure = toFrontendError(this.#name, error);
    const isBackendFinished = await this.#held.release();
    this.#end({ reason: 'failed', error: this.#failure ?? failure, isBackendFinished });
  }

  #end(end: FrontendEnd): void {
    if (this.#hasEnded) {
      return;
    }
    this.#hasEnded = true;
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

  /** From here on the connection, or the attempt at one, is with the back end that is seen. */
  async #linkTo({ backend, domid }: Observation): Promise<void> {
    this.#link = backend && { backend, domid };
    if (backend !== undefined) {
      await this.#watches.follow(backend.path);
    }
  }
}
