/**
 * Limits that make requests wait. Lanes count it; here somebody looks now and then, and the log
 * says once in a while which limit of which vbd was met, how often, and what raises it.
 */

import { Counter, type Lane } from '../dataplane/index.ts';
import type { Logger } from './log.ts';

/** A vbd as far as its limits go. */
export interface LimitedVbd {
  readonly name: string;
  readonly lanes: readonly Pick<Lane, 'counters'>[];
}

export interface LimitWatchOptions {
  readonly log: Logger;
  vbds(): readonly LimitedVbd[];
  /** Tests have a clock of their own, and look by themselves. */
  readonly nowMs?: () => number;
}

const LOOK_MS = 10_000;
/** One line in this time, for each limit of each vbd. */
const QUIET_MS = 600_000;

const LIMITS = [
  {
    limit: 'pages',
    counter: Counter.PAGE_WAITS,
    what: 'granted pages',
    advice: '`xenblk-nbd doctor` says whether the guest allows for more',
  },
  {
    limit: 'slots',
    counter: Counter.SLOT_WAITS,
    what: 'slots of the ring',
    advice: 'a larger ring has more of them: --ring-page-order 4',
  },
  {
    limit: 'requests',
    counter: Counter.OPERATION_WAITS,
    what: 'others to end',
    advice: 'see --max-requests, and the memory that clients may take',
  },
] as const;

export class LimitWatch {
  readonly #options: LimitWatchOptions;
  readonly #nowMs: () => number;
  readonly #timer: NodeJS.Timeout;
  /** What was told last, by vbd and limit. */
  readonly #told = new Map<string, { readonly count: number; readonly atMs: number }>();

  constructor(options: LimitWatchOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#timer = setInterval(() => this.look(), LOOK_MS);
    this.#timer.unref();
  }

  /** Looks a last time. */
  stop(): void {
    clearInterval(this.#timer);
    this.look();
  }

  /** Tells of every limit that was met since it was told last, unless that was a moment ago. */
  look(): void {
    const nowMs = this.#nowMs();
    for (const { name, lanes } of this.#options.vbds()) {
      for (const { limit, counter, what, advice } of LIMITS) {
        const count = lanes.reduce((sum, { counters }) => sum + counters.get(counter), 0);
        const key = `${name} ${limit}`;
        const told = this.#told.get(key);
        const times = count - (told?.count ?? 0);
        if (times <= 0 || (told !== undefined && nowMs - told.atMs < QUIET_MS)) continue;
        this.#told.set(key, { count, atMs: nowMs });
        const often = times === 1 ? 'once' : `${times} times`;
        const message = `${name}: requests have waited ${often} for ${what}; ${advice}`;
        this.#options.log.info('limit-hit', { vbd: name, limit, times }, message);
      }
    }
  }
}
