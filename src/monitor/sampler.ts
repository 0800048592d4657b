/** Turns counters that only grow into rates over a second, and keeps the last minutes of them. */

import {
  Counter,
  LATENCY_BUCKETS,
  LATENCY_COMMANDS,
  type LatencyCommand,
  latencyPercentileUs,
} from '../dataplane/index.ts';
import type { LatencySummary, Sample, VbdSample } from './report.ts';
import type { MonitoredVbd } from './source.ts';

/** Samples that are kept: five minutes. */
const HISTORY_LENGTH = 300;
const BUCKETS_PER_OCTAVE = 4;
/** Rows of the heat map: below 4 us, then one for each doubling. */
const HEAT_ROWS = LATENCY_BUCKETS / BUCKETS_PER_OCTAVE;

/** The counters of a vbd at one moment, all lanes together. */
interface Totals {
  readonly values: Readonly<Record<Counter, number>> & Float64Array;
  readonly latencies: Readonly<Record<LatencyCommand, Float64Array>>;
}

export class Sampler {
  readonly #vbds: () => readonly MonitoredVbd[];
  readonly #clock: { readonly nowMs: () => number; readonly unixMs: () => number };
  readonly #before = new Map<string, Totals>();
  readonly #history: Sample[] = [];
  #beforeMs: number;

  constructor(
    vbds: () => readonly MonitoredVbd[],
    clock: { readonly nowMs: () => number; readonly unixMs: () => number },
  ) {
    this.#vbds = vbds;
    this.#clock = clock;
    this.#beforeMs = clock.nowMs();
  }

  /** The last minutes, the oldest sample first. */
  get history(): readonly Sample[] {
    return this.#history;
  }

  /** What happened since the last call. */
  sample(): Sample {
    const nowMs = this.#clock.nowMs();
    const spanMs = Math.max(1, nowMs - this.#beforeMs);
    this.#beforeMs = nowMs;
    const vbds = this.#vbds().map((vbd) => {
      const totals = totalsOf(vbd);
      const before = this.#before.get(vbd.name) ?? totals;
      this.#before.set(vbd.name, totals);
      return sampleVbd(vbd, before, totals, 1000 / spanMs);
    });
    const sample = { atMs: this.#clock.unixMs(), spanMs, vbds };
    this.#history.push(sample);
    if (this.#history.length > HISTORY_LENGTH) this.#history.shift();
    return sample;
  }
}

function totalsOf({ lanes }: MonitoredVbd): Totals {
  const values = new Float64Array(lanes[0]?.counters.values.length ?? 0);
  const entries = LATENCY_COMMANDS.map(
    (command) => [command, new Float64Array(LATENCY_BUCKETS)] as const,
  );
  for (const { counters } of lanes) {
    addTo(values, counters.values);
    for (const [command, histogram] of entries) addTo(histogram, counters.latencyOf(command));
  }
  return {
    values: values as Totals['values'],
    latencies: Object.fromEntries(entries) as Record<LatencyCommand, Float64Array>,
  };
}

function addTo(sum: Float64Array, more: Float64Array): void {
  for (const [index, value] of more.entries()) sum[index] = (sum[index] ?? 0) + value;
}

function sampleVbd(vbd: MonitoredVbd, before: Totals, now: Totals, perSecond: number): VbdSample {
  const rate = (counter: Counter): number =>
    round((now.values[counter] - before.values[counter]) * perSecond);
  const grown = (command: LatencyCommand): Float64Array =>
    now.latencies[command].map((count, bucket) => count - (before.latencies[command][bucket] ?? 0));
  const histograms = LATENCY_COMMANDS.map((command) => [command, grown(command)] as const);
  const all = new Float64Array(LATENCY_BUCKETS);
  for (const [, histogram] of histograms) addTo(all, histogram);
  const byCommand = Object.fromEntries(histograms) as Record<LatencyCommand, Float64Array>;
  const requests = Object.fromEntries(
    histograms.map(([command, histogram]) => [command, round(sum(histogram) * perSecond)]),
  ) as Record<LatencyCommand, number>;
  return {
    name: vbd.name,
    isWaiting: vbd.isWaiting,
    clients: now.values[Counter.CLIENTS_NOW],
    requests,
    readBytes: rate(Counter.READ_BYTES),
    writtenBytes: rate(Counter.WRITTEN_BYTES),
    errors: rate(Counter.ERRORS),
    ringRequests: rate(Counter.RING_REQUESTS),
    notifications: rate(Counter.RING_NOTIFICATIONS),
    waits: rate(Counter.PAGE_WAITS) + rate(Counter.SLOT_WAITS) + rate(Counter.OPERATION_WAITS),
    latencyUs: {
      read: summarise(byCommand.read),
      write: summarise(byCommand.write),
      flush: summarise(byCommand.flush),
      all: summarise(all),
    },
    heat: heatOf(all, perSecond),
    slotsUsed: now.values[Counter.SLOTS_USED_NOW],
    slotCount: vbd.slotCount,
    pagesUsed: now.values[Counter.PAGES_USED_NOW],
    pageCount: vbd.pageCount,
    // Each lane counts each of them.
    recoveries: vbd.lanes[0]?.counters.get(Counter.RECOVERIES) ?? 0,
    backendErrors:
      now.values[Counter.FAILED_READS] +
      now.values[Counter.FAILED_WRITES] +
      now.values[Counter.FAILED_FLUSHES] +
      now.values[Counter.FAILED_TRIMS],
  };
}

function summarise(histogram: Float64Array): LatencySummary {
  return {
    p50: latencyPercentileUs(histogram, 0.5),
    p95: latencyPercentileUs(histogram, 0.95),
    p99: latencyPercentileUs(histogram, 0.99),
    max: latencyPercentileUs(histogram, 1),
  };
}

function heatOf(histogram: Float64Array, perSecond: number): number[] {
  return Array.from({ length: HEAT_ROWS }, (_, row) => {
    const at = row * BUCKETS_PER_OCTAVE;
    return round(sum(histogram.subarray(at, at + BUCKETS_PER_OCTAVE)) * perSecond);
  });
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

/** More digits than anybody reads cost bytes on the way to each page. */
function round(value: number): number {
  return Math.round(value * 10) / 10;
}
