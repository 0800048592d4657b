/**
 * One clock and one queue of events: everything that happens in a simulated history happens here,
 * in
 * an order that the seed decides. Nothing in a history looks at the machine's clock.
 *
 * An actor that wants to act later asks for a delay; how long one of its own steps takes is drawn
 * from the seed (`latencyMs`), over several orders of magnitude, and so every interleaving of the
 * actors can come up.
 *
 * Promises: an event may settle promises of the code under test, and says so by `touch`. Their
 * reactions run in the order of Node's microtask queue, which does not depend on time, and they get
 * a fixed number of rounds before the next event. Before time takes a jump, all of them are let run
 * out: otherwise a packet
 * that is about to be sent would be sent after a timeout of seconds.
 */

import type { Clock } from '../../src/frontend/index.ts';
import { SeededRandom } from '../support/random.ts';

/** Microtask rounds between two events; a chain from one packet to the next takes about ten. */
const ROUNDS = 16;
/** No chain of promises may be cut by a jump longer than this. */
const JUMP_MS = 0.5;

interface Event {
  readonly dueMs: number;
  readonly order: number;
  readonly run: () => void;
  isCancelled: boolean;
}

export class Scheduler implements Clock {
  readonly random: SeededRandom;
  /** How slow everything is: the middle of the latencies, in milliseconds. */
  tempoMs = 0.02;
  eventCount = 0;
  /** Promises were settled, or may have been: their reactions get their rounds. */
  #isTouched = false;
  #nowMs = 0;
  #order = 0;
  readonly #heap: Event[] = [];
  /** Told each line of the trace; undefined when nobody listens. */
  readonly #listener: ((line: string) => void) | undefined;

  constructor(seed: number, listener?: (line: string) => void) {
    this.random = new SeededRandom(seed);
    this.#listener = listener;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  get isTraced(): boolean {
    return this.#listener !== undefined;
  }

  /** Adds a line to the trace. Callers in busy places look at {@link isTraced} first. */
  trace(who: string, what: string): void {
    this.#listener?.(`${this.#nowMs.toFixed(3).padStart(11)} ${who.padEnd(9)} ${what}`);
  }

  /** How long a step takes: between a tenth and ten times the tempo, and now and then far more. */
  latencyMs(): number {
    const { random, tempoMs } = this;
    const spread = 10 ** (2 * (random.u32() / 2 ** 32) - 1);
    return tempoMs * spread * (random.u32() < 0x0400_0000 ? 50 : 1);
  }

  /** To be called by an event that may settle a promise of the code under test. */
  touch(): void {
    this.#isTouched = true;
  }

  /** Runs `task` after one {@link latencyMs}. */
  soon(task: () => void): void {
    this.after(this.latencyMs(), task);
  }

  after(delayMs: number, task: () => void): () => void {
    const event: Event = {
      dueMs: this.#nowMs + delayMs,
      order: this.#order++,
      run: task,
      isCancelled: false,
    };
    this.#push(event);
    return () => {
      event.isCancelled = true;
    };
  }

  startTimer(delayMs: number, callback: () => void): () => void {
    return this.after(Math.max(0, delayMs), () => {
      this.#isTouched = true;
      callback();
    });
  }

  /** Resolves after a delay. */
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.startTimer(delayMs, resolve);
    });
  }

  /**
   * Runs events until `isDone` says so, which is asked after each. Returns false when nothing is
   * left to happen, or when `limitMs` is reached; then time stands there.
   */
  async run(isDone: () => boolean, limitMs: number): Promise<boolean> {
    while (!isDone()) {
      const next = this.#heap[0];
      if (next === undefined || next.dueMs > this.#nowMs + JUMP_MS) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      const event = this.#pop();
      if (event === undefined) return isDone();
      if (event.isCancelled) continue;
      if (event.dueMs > limitMs) {
        this.#push(event);
        return isDone();
      }
      this.#nowMs = Math.max(this.#nowMs, event.dueMs);
      this.eventCount += 1;
      event.run();
      if (!this.#isTouched) continue;
      this.#isTouched = false;
      for (let round = 0; round < ROUNDS; round++) await Promise.resolve();
    }
    return true;
  }

  // --- a binary heap by time, and by order of asking among equals

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const other = heap[parent] as Event;
      if (isEarlier(other, event)) break;
      heap[at] = other;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isEarlier(heap[child + 1] as Event, heap[child] as Event)) {
        child += 1;
      }
      const other = heap[child] as Event;
      if (isEarlier(last, other)) break;
      heap[at] = other;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

function isEarlier(one: Event, other: Event): boolean {
  return one.dueMs < other.dueMs || (one.dueMs === other.dueMs && one.order < other.order);
}
