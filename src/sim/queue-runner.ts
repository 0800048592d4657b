/**
 * Serves one ring: waits for its event channel, lets the engine work, tells the front end. Owned by
 * one thread; it has no loop and no clock of its own, so that a worker and a deterministic test
 * can both drive it.
 *
 * A runner can be told to be late. Then requests are taken from the ring at once and executed, and
 * answered, at some later time, in any order; their pages stay mapped meanwhile. So what was given
 * to a back end may still happen after the front end has given up on it, as with a real disk.
 */

import { BlkifOp, BlkifStatus } from '../blkif/index.ts';
import type { EventChannel } from '../host/index.ts';
import type { BlkbackEngine, Job } from './blkback-engine.ts';
import type { SeededRandom } from './faults.ts';
import type { HostileAnswers } from './hostile-answers.ts';

/** Responses are shown at the latest after this much data, so that the other side can go on. */
const PUBLISH_BYTES = 256 * 1024;
/** Publications in one turn, before other rings of the thread get theirs. */
const ROUNDS_PER_TURN = 16;

/** Trouble of all rings of a thread; none when both are zero. */
export interface RunnerFaults {
  /** Part of the requests that is answered with an error, 0..1. */
  errorRate: number;
  /** Requests are executed and answered up to this late. */
  delayMs: number;
}

/** How a runner ends. */
export const StopMode = {
  /** What was taken is finished and answered, as when a connection is closed. */
  DRAIN: 'drain',
  /** What was taken is still executed, each at its time, and never answered: a crash. */
  CRASH: 'crash',
  /** What was taken and not executed never is: the power failed. */
  POWER_LOSS: 'power-loss',
} as const;
export type StopMode = (typeof StopMode)[keyof typeof StopMode];

/** An event channel that can also drop an event which came before a look at the ring. */
export interface RunnerChannel extends EventChannel {
  discardPending?(): void;
}

interface HeldJob {
  readonly job: Job;
  readonly executeAtMs: number;
  readonly answerAtMs: number;
  isExecuted: boolean;
}

export class QueueRunner {
  readonly channel: RunnerChannel;
  readonly engine: BlkbackEngine;
  /** Called once when the front end broke the ring. */
  onBroken: (() => void) | undefined;
  private readonly faults: RunnerFaults;
  private readonly random: SeededRandom;
  private readonly hostile: HostileAnswers | undefined;
  private readonly held: HeldJob[] = [];
  private readonly spareJobs: Job[] = [];
  private stopMode: StopMode | undefined;

  /** @param hostile undefined for a back end that tells the truth. */
  constructor(
    engine: BlkbackEngine,
    channel: RunnerChannel,
    faults: RunnerFaults,
    random: SeededRandom,
    hostile?: HostileAnswers,
  ) {
    this.engine = engine;
    this.channel = channel;
    this.faults = faults;
    this.random = random;
    this.hostile = hostile;
  }

  /**
   * Serves what is on the ring. Call it when the channel's descriptor is readable, and again when
   * it returned true: then it stopped early to let others run.
   */
  run(nowMs: number): boolean {
    this.channel.consume();
    for (let round = 0; round < ROUNDS_PER_TURN; round++) {
      this.serve(nowMs);
      if (!this.rest()) return false;
    }
    return true;
  }

  /** Whether requests are on the ring that were not taken. */
  get hasRequests(): boolean {
    return this.stopMode === undefined && this.engine.hasRequests;
  }

  /** Serves what is on the ring, up to one publication, and stays awake: see {@link rest}. */
  serve(nowMs: number): void {
    if (this.stopMode !== undefined) return;
    // An event that came before this look at the ring is answered by the look. Dropping it here
    // saves a wake-up; one that comes after this line stays, and unmask delivers it.
    this.channel.discardPending?.();
    if (this.isPlain) this.engine.run(PUBLISH_BYTES);
    else this.hold(nowMs);
    this.publish();
  }

  /** Asks to be woken for the next request. True when it is there already, and has to be served. */
  rest(): boolean {
    if (this.stopMode !== undefined) return false;
    if (this.engine.finalCheck()) return true;
    if (this.engine.isBroken) this.reportBroken();
    this.channel.unmask();
    return false;
  }

  /** Executes and answers the late requests whose time has come. */
  runDue(nowMs: number): void {
    for (const one of this.held) {
      if (!one.isExecuted && one.executeAtMs <= nowMs) this.execute(one);
    }
    for (let index = 0; index < this.held.length; ) {
      const one = this.held[index];
      if (one === undefined || this.endOf(one) > nowMs) index += 1;
      else this.finish(index, nowMs);
    }
    this.publish();
    this.hostile?.runDue(nowMs);
  }

  /** When {@link runDue} has something to do next; Infinity when nothing is late. */
  get nextDueMs(): number {
    let nextMs = this.hostile?.nextDueMs ?? Number.POSITIVE_INFINITY;
    for (const one of this.held) {
      nextMs = Math.min(nextMs, one.isExecuted ? this.endOf(one) : one.executeAtMs);
    }
    return nextMs;
  }

  /** Takes nothing from the ring any more. {@link isStopped} tells when the rest is done. */
  stop(mode: StopMode): void {
    this.stopMode = mode;
    this.hostile?.stop();
    if (mode !== StopMode.POWER_LOSS) return;
    for (const { job } of this.held.splice(0)) this.engine.abandon(job);
  }

  /** Whether it was told to stop and nothing that was taken is left; grants are given back then. */
  get isStopped(): boolean {
    return this.stopMode !== undefined && this.held.length === 0;
  }

  /** Requests taken and not finished. */
  get heldCount(): number {
    return this.held.length;
  }

  /** Whether it neither fails, nor lies, nor is late: then it does not look at the time. */
  get isPlain(): boolean {
    const { delayMs, errorRate } = this.faults;
    return delayMs === 0 && errorRate === 0 && this.hostile === undefined && this.held.length === 0;
  }

  private publish(): void {
    if (this.engine.publish()) this.channel.notify();
    this.hostile?.published();
  }

  private reportBroken(): void {
    this.onBroken?.();
    this.onBroken = undefined;
  }

  // --- being late, failing and lying

  private hold(nowMs: number): void {
    for (;;) {
      const job = this.spareJobs.pop() ?? this.engine.createJob();
      if (!this.engine.takeInto(job)) {
        this.spareJobs.push(job);
        return;
      }
      const isBarrier = job.operation === BlkifOp.BLKIF_OP_WRITE_BARRIER;
      // A barrier waits for everything before it, and what comes after waits for it.
      if (isBarrier) this.finishAll(nowMs);
      const delayMs = isBarrier ? 0 : this.faults.delayMs;
      const executeAtMs = nowMs + this.random.next() * delayMs;
      const answerAtMs = executeAtMs + this.random.next() * delayMs;
      this.held.push({ job, executeAtMs, answerAtMs, isExecuted: false });
      if (delayMs === 0) this.finish(this.held.length - 1, nowMs);
    }
  }

  /** A request that will not be answered is done with once it is executed. */
  private endOf(one: HeldJob): number {
    return this.stopMode === StopMode.CRASH ? one.executeAtMs : one.answerAtMs;
  }

  private execute(one: HeldJob): void {
    one.isExecuted = true;
    const { job } = one;
    if (this.faults.errorRate > 0 && this.random.next() < this.faults.errorRate) {
      // A failed request may have been done all the same.
      if (this.random.next() < 0.5) this.engine.execute(job);
      job.status = BlkifStatus.BLKIF_RSP_ERROR;
      return;
    }
    this.engine.execute(job);
  }

  /** Answers and forgets the held request at `index`. */
  private finish(index: number, nowMs: number): void {
    const [one] = this.held.splice(index, 1);
    if (one === undefined) return;
    if (!one.isExecuted) this.execute(one);
    if (this.stopMode === StopMode.CRASH) {
      this.engine.abandon(one.job);
    } else {
      this.hostile?.spoil(one.job, nowMs);
      this.engine.answer(one.job);
    }
    this.spareJobs.push(one.job);
  }

  private finishAll(nowMs: number): void {
    while (this.held.length > 0) this.finish(0, nowMs);
    this.publish();
  }
}
