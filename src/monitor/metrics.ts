/**
 * The metrics for Prometheus, by prom-client. Nothing is counted here: at each scrape the numbers
 * are read from the lanes' shared memory. Names and meanings are part of the interface.
 */

import { Gauge, Histogram, Counter as PromCounter, Registry } from 'prom-client';
import {
  Counter,
  LATENCY_BUCKETS,
  LATENCY_COMMANDS,
  type LatencyCommand,
  latencyFloorUs,
} from '../dataplane/index.ts';
import { ERROR_NAMES } from './error-names.ts';
import type { MonitoredVbd, MonitorSource } from './source.ts';

interface Row {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** What gauges and counters can both do. */
interface Counted {
  reset(): void;
  inc(labels: Row['labels'], value: number): void;
}

/** All metrics of a daemon. */
export function createMetrics(source: MonitorSource): Registry {
  const registry = new Registry();
  addDaemonMetrics(registry, source);
  addRequestMetrics(registry, source);
  addRingMetrics(registry, source);
  return registry;
}

function addDaemonMetrics(registry: Registry, source: MonitorSource): void {
  const one = (name: string, help: string, read: (vbd: MonitoredVbd) => number): void =>
    addOfVbd(registry, source, name, help, read);
  add(registry, 'info', 'Always 1; the label tells the version.', ['version'], () => [
    { labels: { version: source.version }, value: 1 },
  ]);
  one('clients', 'Clients that are served now.', (vbd) => total(vbd, Counter.CLIENTS_NOW));
  add(
    registry,
    'client_refusals_total',
    'Clients turned away: too many were there, or the handshake failed.',
    ['reason'],
    () => {
      const { tooMany, handshake } = source.refusals();
      return [
        { labels: { reason: 'too_many' }, value: tooMany },
        { labels: { reason: 'handshake' }, value: handshake },
      ];
    },
  );
  one('vbd_size_bytes', 'Size of the disk.', ({ sizeBytes }) => sizeBytes);
  one('vbd_waiting', '1 while the backend is lost and clients wait.', ({ isWaiting }) =>
    isWaiting ? 1 : 0,
  );
  one(
    'recoveries_total',
    'Times the backend was connected anew.',
    ({ lanes }) => lanes[0]?.counters.get(Counter.RECOVERIES) ?? 0,
  );
}

const COMMAND_COUNTERS: Readonly<Record<LatencyCommand, Counter>> = {
  read: Counter.READS,
  write: Counter.WRITES,
  flush: Counter.FLUSHES,
  trim: Counter.TRIMS,
  zeroes: Counter.ZEROES,
  other: Counter.OTHER_COMMANDS,
};

function addRequestMetrics(registry: Registry, source: MonitorSource): void {
  add(registry, 'requests_total', 'NBD requests that came.', ['vbd', 'command'], () =>
    rows(source, (vbd) =>
      LATENCY_COMMANDS.map((command) => ({
        labels: { command },
        value: total(vbd, COMMAND_COUNTERS[command]),
      })),
    ),
  );
  add(registry, 'bytes_total', 'Bytes asked for.', ['vbd', 'direction'], () =>
    rows(source, (vbd) => [
      { labels: { direction: 'read' }, value: total(vbd, Counter.READ_BYTES) },
      { labels: { direction: 'write' }, value: total(vbd, Counter.WRITTEN_BYTES) },
    ]),
  );
  add(registry, 'errors_total', 'Replies with an error.', ['vbd', 'error'], () =>
    rows(source, (vbd) =>
      [...ERROR_NAMES].map(([error, position]) => ({
        labels: { error },
        value: total(vbd, position),
      })),
    ),
  );
  registry.registerMetric(new RequestDurations(source));
}

function addRingMetrics(registry: Registry, source: MonitorSource): void {
  const one = (name: string, help: string, read: (vbd: MonitoredVbd) => number): void =>
    addOfVbd(registry, source, name, help, read);
  one('ring_slots', 'Slots of all rings.', ({ slotCount }) => slotCount);
  one('ring_slots_used', 'Slots that hold a request.', (vbd) => total(vbd, Counter.SLOTS_USED_NOW));
  one('pages', 'Granted pages for data in transit.', ({ pageCount }) => pageCount);
  one('pages_used', 'Those that are in use.', (vbd) => total(vbd, Counter.PAGES_USED_NOW));
  one('ring_requests_total', 'Requests made to the backend.', (vbd) =>
    total(vbd, Counter.RING_REQUESTS),
  );
  one(
    'joined_requests_total',
    'Reads and writes that went along in the request of a neighbour.',
    (vbd) => total(vbd, Counter.JOINED_REQUESTS),
  );
  one(
    'relayed_requests_total',
    'Those that went through the ring of another lane, for want of rings.',
    (vbd) => total(vbd, Counter.RELAYED_REQUESTS),
  );
  one('notifications_total', 'Event channel notifications sent.', (vbd) =>
    total(vbd, Counter.RING_NOTIFICATIONS),
  );
  one(
    'notifications_saved_total',
    'Requests that needed none of their own: they shared one, or the backend was awake.',
    (vbd) =>
      Math.max(0, total(vbd, Counter.RING_REQUESTS) - total(vbd, Counter.RING_NOTIFICATIONS)),
  );
  add(
    registry,
    'backend_errors_total',
    'Requests on the ring that the backend answered with an error, each asked alone.',
    ['vbd', 'operation'],
    () =>
      rows(source, (vbd) => [
        { labels: { operation: 'read' }, value: total(vbd, Counter.FAILED_READS) },
        { labels: { operation: 'write' }, value: total(vbd, Counter.FAILED_WRITES) },
        { labels: { operation: 'flush' }, value: total(vbd, Counter.FAILED_FLUSHES) },
        { labels: { operation: 'trim' }, value: total(vbd, Counter.FAILED_TRIMS) },
      ]),
  );
  one('ring_events_total', 'Events that the backend woke us with.', (vbd) =>
    total(vbd, Counter.RING_EVENTS),
  );
  add(registry, 'limit_waits_total', 'Times a limit made wait.', ['vbd', 'limit'], () =>
    rows(source, (vbd) => [
      { labels: { limit: 'pages' }, value: total(vbd, Counter.PAGE_WAITS) },
      { labels: { limit: 'slots' }, value: total(vbd, Counter.SLOT_WAITS) },
      { labels: { limit: 'requests' }, value: total(vbd, Counter.OPERATION_WAITS) },
    ]),
  );
}

function rows(source: MonitorSource, read: (vbd: MonitoredVbd) => Row[]): Row[] {
  return source
    .vbds()
    .flatMap((vbd) =>
      read(vbd).map(({ labels, value }) => ({ labels: { vbd: vbd.name, ...labels }, value })),
    );
}

function total({ lanes }: MonitoredVbd, position: Counter): number {
  return lanes.reduce((sum, { counters }) => sum + counters.get(position), 0);
}

/** Adds a metric that is read at each scrape. A name in `_total` is that of a counter. */
function add(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  read: () => Row[],
): void {
  const Kind = name.endsWith('_total') ? PromCounter : Gauge;
  const metric: Counted = new Kind({
    name: `xenblk_nbd_${name}`,
    help,
    labelNames,
    registers: [registry],
    collect: () => {
      metric.reset();
      for (const { labels, value } of read()) metric.inc({ ...labels }, value);
    },
  });
}

/** Adds a metric that is one number for each vbd. */
function addOfVbd(
  registry: Registry,
  source: MonitorSource,
  name: string,
  help: string,
  read: (vbd: MonitoredVbd) => number,
): void {
  add(registry, name, help, ['vbd'], () =>
    rows(source, (vbd) => [{ labels: {}, value: read(vbd) }]),
  );
}

/** Powers of two from 4 us to 67 s, as the lanes' buckets have them. */
const BOUNDS: readonly { readonly bucket: number; readonly le: number }[] = Array.from(
  { length: LATENCY_BUCKETS / 4 - 1 },
  (_, octave) => {
    const bucket = (octave + 1) * 4;
    return { bucket, le: latencyFloorUs(bucket) / 1e6 };
  },
);

const DURATION = 'xenblk_nbd_request_duration_seconds';
const DURATION_HELP = 'Time from a request to its reply.';

/** One line of the text: a bucket, a sum or a count. */
interface DurationRow extends Row {
  readonly metricName: string;
}

/** A histogram whose counts are the lanes' own: prom-client only writes them down. */
class RequestDurations extends Histogram {
  readonly #source: MonitorSource;

  constructor(source: MonitorSource) {
    super({ name: DURATION, help: DURATION_HELP, registers: [] });
    this.#source = source;
  }

  /** What prom-client asks a histogram for when it writes text. */
  async getForPromString(): Promise<object> {
    const values = this.#source
      .vbds()
      .flatMap((vbd) => LATENCY_COMMANDS.flatMap((command) => durationsOf(vbd, command)));
    return { name: DURATION, help: DURATION_HELP, type: 'histogram', values };
  }
}

function durationsOf(vbd: MonitoredVbd, command: LatencyCommand): DurationRow[] {
  const labels = { vbd: vbd.name, command };
  const histograms = vbd.lanes.map(({ counters }) => counters.latencyOf(command));
  let count = 0;
  const values: DurationRow[] = [];
  const addBuckets = (from: number, to: number): void => {
    for (const histogram of histograms) {
      for (let bucket = from; bucket < to; bucket++) count += histogram[bucket] ?? 0;
    }
  };
  let from = 0;
  for (const { bucket, le } of BOUNDS) {
    addBuckets(from, bucket);
    from = bucket;
    values.push({ labels: { ...labels, le }, value: count, metricName: `${DURATION}_bucket` });
  }
  addBuckets(from, LATENCY_BUCKETS);
  const sumUs = vbd.lanes.reduce((sum, { counters }) => sum + counters.latencySumUs(command), 0);
  return [
    ...values,
    { labels: { ...labels, le: '+Inf' }, value: count, metricName: `${DURATION}_bucket` },
    { labels, value: sumUs / 1e6, metricName: `${DURATION}_sum` },
    { labels, value: count, metricName: `${DURATION}_count` },
  ];
}
