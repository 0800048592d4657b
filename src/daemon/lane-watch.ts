/**
 * What lanes count and nobody else would tell of: limits that make requests wait, and requests that
 * the backend could not do. Here somebody looks now and then, and the log says once in a while what
 * happened to which vbd, how often, and what to do.
 */

import { Counter, type Lane } from '../dataplane/index.ts';
import type { Logger } from './log.ts';

/** A vbd as far as it is looked at. */
export interface WatchedVbd {
  readonly name: string;
  readonly lanes: readonly Pick<Lane, 'counters'>[];
}

export interface LaneWatchOptions {
  readonly log: Logger;
  vbds(): readonly WatchedVbd[];
  /** Tests have a clock of their own, and look by themselves. */
  readonly nowMs?: () => number;
}

const LOOK_MS = 10_000;
/** One line in this time, for each limit of each vbd. */
const LIMIT_QUIET_MS = 600_000;
/** The same for errors of each backend. */
const FAILURE_QUIET_MS = 60_000;

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

const FAILURES = [
  { kind: 'reads', counter: Counter.FAILED_READS, one: 'a read' },
  { kind: 'writes', counter: Counter.FAILED_WRITES, one: 'a write' },
  { kind: 'flushes', counter: Counter.FAILED_FLUSHES, one: 'a flush' },
  { kind: 'trims', counter: Counter.FAILED_TRIMS, one: 'a trim' },
] as const;

const LIST = new Intl.ListFormat('en-GB');

/** What was told last of one thing. */
interface Told {
  readonly count: number;
  readonly atMs: number;
}

export class LaneWatch {
  readonly #options: LaneWatchOptions;
  readonly #nowMs: () => number;
  readonly #timer: NodeJS.Timeout;
  /** By vbd, and by limit or kind of request. */
  readonly #told = new Map<string, Told>();

  constructor(options: LaneWatchOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#timer = setInterval(() => this.look(), LOOK_MS);
    this.#timer.unref();
  }

  /** Looks a last time. */
  stop(): void {
    clearInterval(this.#timer);
    this.lookAtOnce();
  }

  /** Tells of everything that happened since it was told last, unless that was a moment ago. */
  look(): void {
    this.#look(FAILURE_QUIET_MS);
  }

  /** The same, and of what the backend could not do in any case: a vbd is about to go. */
  lookAtOnce(): void {
    this.#look(0);
  }

  #look(failureQuietMs: number): void {
    const nowMs = this.#nowMs();
    for (const vbd of this.#options.vbds()) {
      this.#lookAtLimits(vbd, nowMs);
      this.#lookAtFailures(vbd, nowMs, failureQuietMs);
    }
  }

  #lookAtLimits({ name, lanes }: WatchedVbd, nowMs: number): void {
    for (const { limit, counter, what, advice } of LIMITS) {
      const key = `${name} ${limit}`;
      const count = total(lanes, counter);
      const times = this.#since(key, count);
      if (times === 0 || this.#wasTold(key, nowMs, LIMIT_QUIET_MS)) continue;
      this.#told.set(key, { count, atMs: nowMs });
      const often = times === 1 ? 'once' : `${times} times`;
      const message = `${name}: requests have waited ${often} for ${what}; ${advice}`;
      this.#options.log.info('limit-hit', { vbd: name, limit, times }, message);
    }
  }

  #lookAtFailures({ name, lanes }: WatchedVbd, nowMs: number, quietMs: number): void {
    const failed = FAILURES.map(({ kind, counter, one }) => {
      const key = `${name} ${kind}`;
      const count = total(lanes, counter);
      return { key, kind, one, count, times: this.#since(key, count) };
    });
    const isQuiet = failed.some(({ key }) => this.#wasTold(key, nowMs, quietMs));
    const news = failed.filter(({ times }) => times > 0);
    if (news.length === 0 || isQuiet) return;
    for (const { key, count } of news) this.#told.set(key, { count, atMs: nowMs });
    const lastByte = lastFailedByte(lanes);
    const what = news.map(({ times, kind, one }) => (times === 1 ? one : `${times} ${kind}`));
    const where = lastByte === undefined ? '' : `, the last in a request at byte ${lastByte}`;
    const message =
      `${name}: the backend has answered ${LIST.format(what)} with an error${where}; clients are ` +
      'told EIO. What is behind the vbd is known in the domain of its backend: look at the log there';
    const counts = Object.fromEntries(news.map(({ kind, times }) => [kind, times]));
    this.#options.log.warn('backend-errors', { vbd: name, ...counts, lastByte }, message);
  }

  /** How often it has happened since it was told. */
  #since(key: string, count: number): number {
    return count - (this.#told.get(key)?.count ?? 0);
  }

  #wasTold(key: string, nowMs: number, quietMs: number): boolean {
    const told = this.#told.get(key);
    return told !== undefined && nowMs - told.atMs < quietMs;
  }
}

function total(lanes: WatchedVbd['lanes'], counter: Counter): number {
  return lanes.reduce((sum, { counters }) => sum + counters.get(counter), 0);
}

/** Where the last failure of all lanes was; undefined when that was a flush. */
function lastFailedByte(lanes: WatchedVbd['lanes']): number | undefined {
  const times = lanes.map(({ counters }) => counters.get(Counter.FAILED_MS));
  const last = lanes[times.indexOf(Math.max(...times))];
  const byte = last?.counters.get(Counter.FAILED_BYTE) ?? -1;
  return byte < 0 ? undefined : byte;
}
