/**
 * A vbd's front end: drives the life cycle of life-cycle.ts over XenStore and holds what the
 * present connection needs of the host.
 *
 * One loop does everything, one step at a time: look at XenStore (observation.ts), decide
 * (interpret.ts), take the step (life-cycle.ts), act (entry-actions.ts), look again. Watches,
 * timers and the owner only wake it. So no two actions interleave, and a merged or late watch event
 * costs a look and nothing else.
 *
 * What holds: pages and event channels of a connection are given back, and `initialising` is
 * entered, only once the old connection is known to be finished and the owner has let go of it.
 */

import assert from 'node:assert/strict';
import type { VbdClaim } from '../host/index.ts';
import type { Attachment } from './attachment.ts';
import { systemClock } from './clock.ts';
import { Deferred } from './deferred.ts';
import { DETACH_REASONS } from './detach-reason.ts';
import { enterState } from './entry-actions.ts';
import { FrontendError, type FrontendErrorCode } from './errors.ts';
import {
  claimedError,
  isStoreLost,
  refusedError,
  timeoutError,
  toFrontendError,
} from './failures.ts';
import { interpret } from './interpret.ts';
import { Life } from './life.ts';
import { type FrontendEvent, type FrontendState, isFinal, transition } from './life-cycle.ts';
import { type Observation, observe } from './observation.ts';
import type { FrontendEnd, FrontendOptions } from './options.ts';

/** What the back end did not do, where the end of a wait is a failure. */
const UNMET: Readonly<Partial<Record<FrontendState, string>>> = {
  absent: 'did not appear',
  initialising: 'did not connect',
  initialised: 'did not connect',
  finishing: 'did not close',
};

/**
 * Failures that a recovery outlasts: the pages of the last ring come back when the back end lets go
 * of them, and a XenStore that is too busy, or full, will not stay so.
 */
const PASSING: ReadonlySet<FrontendErrorCode> = new Set(['HOST', 'STORE']);

/** What XenStore may take for the requests of a close. */
const STORE_MARGIN_MS = 2_000;

/** Connects to a vbd. See {@link Frontend.attach}. */
export async function connectVbd(options: FrontendOptions): Promise<Frontend> {
  const frontend = new Frontend(options);
  await frontend.attach();
  return frontend;
}

/** One vbd's front end, from its attach to its end. It is used once. */
export class Frontend {
  readonly #life: Life;
  readonly #ended = new Deferred<FrontendEnd>();
  #vbdClaim: VbdClaim | undefined;
  #hasEnded = false;

  constructor(options: FrontendOptions) {
    this.#life = new Life(options);
  }

  /** Where in its life it stands, for the log and the status page. */
  get state(): FrontendState {
    return this.#life.state;
  }

  /** The present connection, or the last one; undefined before the first. */
  get attachment(): Attachment | undefined {
    return this.#life.attachment;
  }

  /** Resolves when the life is over, as the event `ended` tells. Never rejects. */
  get ended(): Promise<FrontendEnd> {
    return this.#ended.promise;
  }

  /**
   * Connects, from whatever states an earlier front end left behind. To be called once; after that
   * the front end lives by itself, and recovers by itself, until {@link close}.
   *
   * @throws FrontendError when that fails within the bounded waits; the vbd is then left at Closed,
   *   unless somebody else drives it, in this process or another.
   */
  async attach(): Promise<Attachment> {
    const life = this.#life;
    assert.equal(life.state, 'idle', 'A front end attaches once.');
    const { signal } = life.options;
    const abort = (): void => {
      const error = new FrontendError('ABORTED', `Connecting to ${life.name} was cancelled.`, {
        cause: signal?.reason,
      });
      life.fail(error);
      // XenStore may be what does not answer: the caller does not wait for the clean-up.
      life.attached.reject(error);
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      if (signal?.aborted === true) {
        abort();
      } else {
        this.#claim();
      }
      if (life.failure === undefined) {
        void this.#live();
      } else {
        this.#end({ reason: 'failed', error: life.failure, isBackendFinished: true });
      }
      return await life.attached.promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Takes the vbd to Closed, ready for the next front end, and ends. The owner must have let go of
   * the rings before. Bounded; resolves in any case, also when called again.
   */
  async close(): Promise<FrontendEnd> {
    const life = this.#life;
    if (life.state === 'idle') {
      this.#end({ reason: 'closed', error: undefined, isBackendFinished: true });
    } else if (life.goal === 'serve') {
      life.held.leave();
      life.pursue('close');
    }
    // Each wait for the back end is bounded; the answers of XenStore itself are not.
    const boundMs = life.timeouts.closingMs + life.timeouts.closedMs + STORE_MARGIN_MS;
    const clock = life.options.clock ?? systemClock;
    const cancel = clock.startTimer(boundMs, () => {
      this.#end({ reason: 'closed', error: undefined, isBackendFinished: false });
    });
    const end = await this.#ended.promise;
    cancel();
    return end;
  }

  /** Before anything is read or written: two who drive one vbd would end each other's rings. */
  #claim(): void {
    const life = this.#life;
    const { host, vbd } = life.options;
    try {
      this.#vbdClaim = host.claimVbd(vbd.id);
      if (this.#vbdClaim === undefined) {
        const claimant = host.vbdClaimant(vbd.id) ?? 'another process';
        life.fail(claimedError(life.name, claimant));
      }
    } catch (error) {
      life.fail(toFrontendError(life.name, error));
    }
  }

  /** The loop, to the end of the life. */
  async #live(): Promise<void> {
    const life = this.#life;
    try {
      await life.probe.start(() => life.wakeUp.poke());
      await life.watches.start(life.node.path);
      while (!isFinal(life.state)) {
        await this.#turn();
      }
    } catch (error) {
      await this.#die(error);
    }
    await life.watches.close();
    await life.probe.close();
  }

  /** One look, and a step or a sleep. */
  async #turn(): Promise<void> {
    const life = this.#life;
    life.wakeUp.beginLook();
    const { store, isReturnAwaited } = life.options;
    const observation = await observe(store, life.node.path, life.link?.backend.path);
    const { isRecoveryOver, ...due } = life.deadlines.due();
    if (isRecoveryOver && life.goal === 'serve') {
      life.fail(timeoutError(life.name, 'did not connect again', observation, undefined));
    }
    const event = interpret({
      state: life.state,
      observation,
      link: life.link,
      goal: life.goal,
      wasConnected: life.attachment !== undefined,
      isReturnAwaited: isReturnAwaited ?? true,
      isDrained: life.isDrained,
      wereKeysSeen: life.wereKeysSeen,
      knownSectors: life.knownSectors,
      isHandedOut: life.held.isInUse,
      ...due,
    });
    if (event !== undefined) {
      await this.#step(event, observation);
      return;
    }
    await life.wakeUp.sleep(life.deadlines.nextMs(life.state, life.goal));
  }

  /** Takes one step. A failure of an action becomes the goal to fail, and the life goes on. */
  async #step(event: FrontendEvent, observation: Observation): Promise<void> {
    const life = this.#life;
    const from = life.state;
    const { to, finishedBecause } = transition(from, event);
    life.log.debug(`${life.name}: ${from} -> ${to} (${event}).`);
    if (event === 'restored') {
      life.held.restore();
    }
    if (finishedBecause !== undefined) {
      life.held.finish(finishedBecause);
    }
    this.#leave(from, event, to);
    life.state = to;
    if (event !== 'nudged') {
      life.deadlines.startWait(to, life.goal);
    }
    try {
      await this.#judge(from, event, observation);
      await (isFinal(to) ? this.#finish(event) : enterState(life, to, event, observation));
    } catch (error) {
      this.#failBy(error);
    }
  }

  /** Tells the owner that a connection is over. */
  #leave(from: FrontendState, event: FrontendEvent, to: FrontendState): void {
    const life = this.#life;
    if (from !== 'connected' && from !== 'draining') {
      return;
    }
    if (to === 'connected' || to === 'draining') {
      return;
    }
    life.deadlines.startRecovery();
    const reason = DETACH_REASONS[event] ?? life.drainReason;
    if (life.held.isInUse) {
      life.log.warn(`${life.name}: the connection is over (${reason}).`);
    }
    life.held.detach(reason);
  }

  /** Turns events that mean a failure into one. */
  async #judge(from: FrontendState, event: FrontendEvent, seen: Observation): Promise<void> {
    const life = this.#life;
    if (event === 'timedOut') {
      const what = UNMET[from];
      if (what !== undefined) {
        life.fail(timeoutError(life.name, what, seen, await life.readTold()));
      }
    } else if (event === 'backendRefused') {
      const error = refusedError(life.name, seen, await life.readTold());
      if (life.attachment === undefined) {
        life.fail(error);
      } else {
        life.log.warn(`${error.message} It is tried again.`);
      }
    }
  }

  /** Leaves the vbd at Closed without our keys, gives everything back and reports the end. */
  async #finish(event: FrontendEvent): Promise<void> {
    const life = this.#life;
    try {
      const isThere = await life.node.leave();
      if (isThere && life.failure !== undefined) {
        await life.node.reportError(life.failure.message);
      }
    } catch (error) {
      life.log.warn(toFrontendError(life.name, error).message);
    }
    const isBackendFinished = await life.held.release();
    if (!isBackendFinished) {
      life.log.warn(
        `${life.name}: the back end did not confirm the end of the connection; its pages stay ` +
          'granted until this process ends.',
      );
    }
    if (life.state === 'failed') {
      this.#end({ reason: 'failed', error: life.failure, isBackendFinished });
    } else {
      const reason = event === 'unpluggedForGood' ? 'unplugged' : 'closed';
      this.#end({ reason, error: undefined, isBackendFinished });
    }
  }

  /** After an action that failed. */
  #failBy(error: unknown): void {
    const life = this.#life;
    if (isStoreLost(error) || (error instanceof FrontendError && error.code === 'HELD')) {
      throw error;
    }
    const failure = toFrontendError(life.name, error);
    if (life.goal !== 'serve') {
      life.log.warn(failure.message);
    } else if (life.attachment !== undefined && PASSING.has(failure.code)) {
      life.log.warn(`${failure.message} It is tried again.`);
      life.deadlines.endWait();
    } else {
      life.fail(failure);
    }
  }

  /** The end without a word to XenStore: it is lost, or the vbd is not ours. */
  async #die(error: unknown): Promise<void> {
    if (this.#hasEnded) {
      return;
    }
    const life = this.#life;
    life.state = 'failed';
    life.held.detach('given-up');
    const failure = toFrontendError(life.name, error);
    const isBackendFinished = await life.held.release();
    this.#end({ reason: 'failed', error: life.failure ?? failure, isBackendFinished });
  }

  #end(end: FrontendEnd): void {
    if (this.#hasEnded) {
      return;
    }
    const life = this.#life;
    this.#hasEnded = true;
    life.state = end.reason === 'failed' ? 'failed' : 'closed';
    this.#vbdClaim?.release();
    this.#ended.resolve(end);
    if (life.attachment === undefined) {
      const gone = new FrontendError('ABORTED', `${life.name} was closed before it was connected.`);
      life.attached.reject(end.error ?? gone);
    } else {
      life.events.ended?.(end);
    }
  }
}
