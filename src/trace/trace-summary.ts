/** A trace for people: one line for each request, or what they come to together. */

import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import { LATENCY_BUCKETS, latencyBucket, latencyPercentileUs } from '../dataplane/index.ts';
import type { Trace, TraceRecord } from './trace-reader.ts';

const NAMES: ReadonlyMap<number, string> = new Map<number, string>([
  [NbdCmd.READ, 'read'],
  [NbdCmd.WRITE, 'write'],
  [NbdCmd.FLUSH, 'flush'],
  [NbdCmd.TRIM, 'trim'],
  [NbdCmd.CACHE, 'cache'],
  [NbdCmd.WRITE_ZEROES, 'zeroes'],
  [NbdCmd.BLOCK_STATUS, 'status'],
]);
const ERRORS = new Map(Object.entries(NbdErrno).map(([name, number]) => [number as number, name]));
const TOP = 5;
/** Offsets are counted by regions of this size. */
const REGION_BYTES = 1024 * 1024;
/** So many regions and sizes are told apart; a trace that has more is counted roughly. */
const KEYS_MAX = 1_000_000;

/** One request: when, which vbd and client, what, where, how much, how long, and how it ended. */
export function formatRecord(record: TraceRecord): string {
  const { atMs, vbd, client, command, offset, lengthBytes, latencyMs, errno } = record;
  const name = NAMES.get(command) ?? `command ${command}`;
  const result = errno === 0 ? 'ok' : errorName(errno);
  return (
    `${new Date(atMs).toISOString()} ${vbd} client ${client} ${name} ` +
    `offset ${offset} length ${lengthBytes} ${latencyMs.toFixed(3)} ms ${result}`
  );
}

interface CommandSums {
  count: number;
  bytes: number;
  readonly latencies: Float64Array;
}

/** The whole trace in some lines of text. */
export async function summariseTrace(trace: Trace): Promise<string> {
  const commands = new Map<string, CommandSums>();
  const sizes = new Map<string, number>();
  const regions = new Map<string, number>();
  const errors = new Map<string, number>();
  let firstMs = Number.POSITIVE_INFINITY;
  let lastMs = 0;
  for await (const record of trace.records) {
    const { atMs, latencyMs, command, lengthBytes, offset, errno, vbd } = record;
    firstMs = Math.min(firstMs, atMs - latencyMs);
    lastMs = Math.max(lastMs, atMs);
    const name = NAMES.get(command) ?? `command ${command}`;
    const sums = commands.get(name) ?? newSums();
    commands.set(name, sums);
    sums.count += 1;
    sums.bytes += lengthBytes;
    const bucket = latencyBucket(latencyMs * 1000);
    sums.latencies[bucket] = (sums.latencies[bucket] ?? 0) + 1;
    if (lengthBytes > 0) {
      add(sizes, `${name} of ${lengthBytes} bytes`);
      add(regions, `${vbd} at ${Math.floor(offset / REGION_BYTES)} MiB`);
    }
    if (errno !== 0) add(errors, `${name}: ${errorName(errno)}`);
  }
  const seconds = commands.size === 0 ? 0 : Math.max(0.001, (lastMs - firstMs) / 1000);
  const total = [...commands.values()].reduce((sum, { count }) => sum + count, 0);
  const dropped = trace.droppedCount();
  return [
    `${total} requests in ${seconds.toFixed(1)} s on ${trace.header.vbds.join(', ') || 'no vbd'}`,
    ...(dropped === 0 ? [] : [`${dropped} more could not be recorded`]),
    'command      requests        MiB     50 %     95 %     99 %      max   (ms)',
    ...[...commands].map(([name, sums]) => commandLine(name, sums)),
    ...topLines('most frequent sizes', sizes),
    ...topLines('most frequent places', regions),
    ...topLines('errors', errors),
  ].join('\n');
}

function newSums(): CommandSums {
  return { count: 0, bytes: 0, latencies: new Float64Array(LATENCY_BUCKETS) };
}

function add(counts: Map<string, number>, key: string): void {
  if (counts.size < KEYS_MAX || counts.has(key)) counts.set(key, (counts.get(key) ?? 0) + 1);
}

function commandLine(name: string, { count, bytes, latencies }: CommandSums): string {
  const ms = [0.5, 0.95, 0.99, 1].map((part) =>
    (latencyPercentileUs(latencies, part) / 1000).toFixed(3).padStart(8),
  );
  const mib = (bytes / REGION_BYTES).toFixed(1).padStart(10);
  return `${name.padEnd(10)} ${String(count).padStart(10)} ${mib} ${ms.join(' ')}`;
}

function topLines(title: string, counts: ReadonlyMap<string, number>): string[] {
  const most = [...counts].sort(([, one], [, other]) => other - one).slice(0, TOP);
  if (most.length === 0) return [];
  return [title, ...most.map(([key, count]) => `  ${String(count).padStart(8)}  ${key}`)];
}

function errorName(errno: number): string {
  return ERRORS.get(errno) ?? `error ${errno}`;
}
