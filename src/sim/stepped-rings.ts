import type { EngineStats } from './blkback-engine.ts';
import { CommandedRings } from './ring-service.ts';
import { RingSet, type ServingThread } from './ring-set.ts';
import type { WorkerCommand } from './worker-messages.ts';

/**
 * Serves rings in the calling thread, a step at a time, with a clock of the caller's: for
 * deterministic tests. Nothing happens outside of {@link step}.
 */
export class SteppedRings extends CommandedRings {
  readonly #rings: RingSet;

  constructor(clockMs: () => number, thread: ServingThread = {}) {
    super();
    this.#rings = new RingSet(clockMs, thread);
    this.#rings.onBroken = (queueId) => this.onBroken?.(queueId);
  }

  /** Serves what has an event waiting, and what is due by the clock. */
  step(): void {
    this.#rings.turn(0);
  }

  /** When the next {@link step} has something to do without an event; Infinity for never. */
  get nextDueMs(): number {
    return this.#rings.nextDueMs;
  }

  protected override obey(command: WorkerCommand): Promise<void> {
    return new Promise((resolve) => this.#rings.obey(command, resolve));
  }

  override stats(): Promise<EngineStats> {
    return Promise.resolve({ ...this.#rings.stats });
  }

  override close(): Promise<void> {
    this.#rings.close();
    return Promise.resolve();
  }
}
