/**
 * Keeps the thread of a back end on the processor of its front end while requests are small.
 *
 * A request then takes two switches on one processor instead of two wake-ups of another one, which
 * is asleep as often as not; in a virtual machine a wake-up costs many times as much as a switch.
 * The kernel does not do so by itself: for the eventfd of an event channel it looks for an idle
 * processor. Large requests are worth one: copying takes longer than waking up. So is a back end
 * that looks for requests which come one by one: it needs no waking, and leaves the front end's
 * processor to the client.
 */

import type { EngineStats } from './engine-stats.ts';

/** Looks at the size of requests once in so many turns. */
const LOOK_TURNS = 64;
/** Requests that are found together, from which on they are followed. */
const TOGETHER_MIN = 1.5;
/** Requests are small up to this, on average. */
const SMALL_BYTES = 32 * 1024;

/** What moves a thread; ProcessorBinding of src/sys. */
export interface Binding {
  bind(processor: number): boolean;
  release(): void;
}

export class FrontEndFollower {
  readonly #binding: Binding;
  readonly #stats: EngineStats;
  #turns = 0;
  #requests = 0;
  #bytes = 0;
  #isFollowing = false;
  /** Where the thread is bound to; -1 while it may run anywhere. */
  #processor = -1;

  constructor(binding: Binding, stats: EngineStats) {
    this.#binding = binding;
    this.#stats = stats;
  }

  /**
   * The front end has rung on `processor`; call it once a turn, before the ring is served.
   * `isAwake`: the thread looks for requests between turns, and needs no ringing.
   */
  rung(processor: number, isAwake: boolean): void {
    this.#turns += 1;
    if (this.#turns === LOOK_TURNS) this.#look(isAwake);
    if (!this.#isFollowing || processor === this.#processor) return;
    this.#processor = processor;
    this.#isFollowing = this.#binding.bind(processor);
  }

  /** Follows nobody, at least for now. */
  stop(): void {
    if (this.#processor >= 0) this.#binding.release();
    this.#processor = -1;
    this.#isFollowing = false;
    this.#turns = 0;
  }

  #look(isAwake: boolean): void {
    const { requests, readBytes, writtenBytes } = this.#stats;
    const bytes = readBytes + writtenBytes;
    const count = requests - this.#requests;
    const isSmall = bytes - this.#bytes <= count * SMALL_BYTES;
    const isTogether = count >= LOOK_TURNS * TOGETHER_MIN;
    this.#requests = requests;
    this.#bytes = bytes;
    this.#turns = 0;
    if (isSmall && (isTogether || !isAwake)) this.#isFollowing = true;
    else this.stop();
  }
}
