/** What the status page and `top` are told, as JSON. Rates are per second. */

import type { LatencyCommand } from '../dataplane/index.ts';
import type { MonitoredClient, MonitoredVbd } from './source.ts';

/** How long requests took, in microseconds; 0 when there were none. */
export interface LatencySummary {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** Commands whose latencies are summarised; `all` is every command together. */
export type SummarisedCommand = 'read' | 'write' | 'flush' | 'all';

/** One vbd over one interval. */
export interface VbdSample {
  readonly name: string;
  readonly isWaiting: boolean;
  readonly clients: number;
  /** Replies sent. */
  readonly requests: Readonly<Record<LatencyCommand, number>>;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly errors: number;
  readonly ringRequests: number;
  readonly notifications: number;
  /** Times that something had to wait for a limit. */
  readonly waits: number;
  readonly latencyUs: Readonly<Record<SummarisedCommand, LatencySummary>>;
  /** Replies by latency: element n is those below 2^(n+2) us, and not below the one before. */
  readonly heat: readonly number[];
  readonly slotsUsed: number;
  readonly slotCount: number;
  readonly pagesUsed: number;
  readonly pageCount: number;
  /** Since the start, not per second. */
  readonly recoveries: number;
  /** What the backend answered with an error. Since the start. */
  readonly backendErrors: number;
}

/** One interval, about a second. */
export interface Sample {
  /** Its end, as Unix time in ms. */
  readonly atMs: number;
  readonly spanMs: number;
  readonly vbds: readonly VbdSample[];
}

/** A vbd as it stands. */
export type VbdReport = Pick<
  MonitoredVbd,
  'name' | 'exportName' | 'sizeBytes' | 'isReadOnly' | 'isWaiting' | 'features'
>;

/** Everything that there is to show, but for what is measured over time. */
export interface Report {
  readonly version: string;
  readonly pid: number;
  /** Unix time in ms. */
  readonly startedMs: number;
  readonly state: 'starting' | 'serving' | 'stopping';
  readonly vbds: readonly VbdReport[];
  readonly clientCount: number;
  /** The first hundred. */
  readonly clients: readonly MonitoredClient[];
}
