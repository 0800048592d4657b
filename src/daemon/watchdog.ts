/**
 * Signs of life for the service manager. That this thread runs shows in its timer; that a lane
 * runs shows in its counter of turns, which must move after the lane was woken.
 */

import { Counter, type Lane } from '../dataplane/index.ts';

/** A lane as far as it is watched. */
export type WatchedLane = Pick<Lane, 'counters' | 'wake'>;

export interface WatchdogOptions {
  /** The service manager's patience. */
  readonly timeoutMs: number;
  lanes(): Iterable<WatchedLane>;
  /** All is well. */
  onAlive(): void;
  /** A lane did not move: from now on there is no sign of life until it does. */
  onStuck(): void;
}

/** Signs per patience: two, as sd_watchdog_enabled(3) advises. */
const SIGNS = 2;

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #turns = new WeakMap<WatchedLane, number>();
  readonly #timer: NodeJS.Timeout;
  #isStuck = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.look(), options.timeoutMs / SIGNS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Looks at all lanes, and wakes them so that the next look sees something. */
  look(): void {
    let isAnyStuck = false;
    for (const lane of this.#options.lanes()) {
      const turns = lane.counters.get(Counter.TURNS);
      if (this.#turns.get(lane) === turns) isAnyStuck = true;
      this.#turns.set(lane, turns);
      lane.wake();
    }
    if (!isAnyStuck) this.#options.onAlive();
    else if (!this.#isStuck) this.#options.onStuck();
    this.#isStuck = isAnyStuck;
  }
}
