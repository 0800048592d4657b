// Collects samples and works out what they say: medians, ratios to the best peer, means over rows.
import type { LatencySample, Sample } from './measure.ts';
import { isSmallAndDeep, isThroughputRow, type Row } from './rows.ts';

/** One server in one row, over all repetitions. */
export interface Cell {
  /** Requests a second, or bytes a second in throughput rows. Median; undefined: nothing worked. */
  readonly rate: number | undefined;
  readonly cpuUsPerRequest: number | undefined;
  readonly backendCpuUsPerRequest: number | undefined;
  readonly samples: readonly Sample[];
  /** What went wrong, once for each repetition that failed. */
  readonly failures: readonly string[];
}

export interface RowResult {
  readonly name: string;
  readonly unit: 'requests/s' | 'bytes/s';
  readonly cells: Readonly<Record<string, Cell>>;
  /** The fastest of the others, by median. */
  readonly bestPeer: string | undefined;
  /** Our median over that of the best peer. */
  readonly ratio: number | undefined;
  /** The least CPU per request among the peers, over ours. Above 1 we are cheaper. */
  readonly cpuRatio: number | undefined;
}

export interface LatencyResult {
  readonly queueDepth: number;
  readonly placement: string;
  readonly cells: Readonly<Record<string, LatencyCell>>;
}

export interface LatencyCell {
  /** Median of each figure over the repetitions; undefined when nothing worked. */
  readonly median: LatencySample | undefined;
  readonly failures: readonly string[];
}

export interface Summary {
  readonly rowCount: number;
  readonly geometricMeanRatio: number | undefined;
  readonly lowestRatio: { readonly row: string; readonly ratio: number } | undefined;
  /** Lowest ratio of the 4 KiB rows with QD 16 and more over 4 connections. */
  readonly lowestDeepRatio: number | undefined;
  readonly geometricMeanCpuRatio: number | undefined;
  /** Our 4 KiB random read at QD64 over 4 connections against nbdkit's file plugin. */
  readonly ratioToNbdkitFile: number | undefined;
  /** Highest of our p99 at QD16 over that of the best peer, of all placements. */
  readonly p99RatioAtQd16: number | undefined;
}

/** Undefined for no values. */
export function median(values: readonly number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[middle - 1], sorted[middle]];
  if (sorted.length % 2 === 1 || low === undefined || high === undefined) return high;
  return (low + high) / 2;
}

/** Undefined for no values. */
export function geometricMean(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

function defined<T>(values: readonly (T | undefined)[]): T[] {
  return values.filter((value) => value !== undefined);
}

function least(values: readonly number[]): number | undefined {
  return values.length > 0 ? Math.min(...values) : undefined;
}

/** Samples and failures as they come in, by row (or any other key) and server. */
export class Collector<T> {
  readonly #samples = new Map<string, T[]>();
  readonly #failures = new Map<string, string[]>();

  add(row: string, server: string, sample: T): void {
    this.#push(this.#samples, row, server, sample);
  }

  addFailure(row: string, server: string, failure: string): void {
    this.#push(this.#failures, row, server, failure);
  }

  samples(row: string, server: string): readonly T[] {
    return this.#samples.get(`${row}\n${server}`) ?? [];
  }

  failures(row: string, server: string): readonly string[] {
    return this.#failures.get(`${row}\n${server}`) ?? [];
  }

  #push<V>(lists: Map<string, V[]>, row: string, server: string, value: V): void {
    const key = `${row}\n${server}`;
    const list = lists.get(key);
    if (list) list.push(value);
    else lists.set(key, [value]);
  }
}

/** Works out one row. `ours` is the name of the server that the others are compared with. */
export function rowResult(
  row: Row,
  servers: readonly string[],
  ours: string,
  collector: Collector<Sample>,
): RowResult {
  const isBytes = isThroughputRow(row);
  const cells: Record<string, Cell> = {};
  for (const server of servers) {
    const samples = collector.samples(row.name, server);
    cells[server] = {
      rate: median(samples.map((s) => (isBytes ? s.bytesPerSecond : s.requestsPerSecond))),
      cpuUsPerRequest: median(samples.map((s) => s.cpuUsPerRequest)),
      backendCpuUsPerRequest: median(samples.map((s) => s.backendCpuUsPerRequest)),
      samples,
      failures: collector.failures(row.name, server),
    };
  }
  const peers = servers.filter((server) => server !== ours);
  let bestPeer: string | undefined;
  for (const peer of peers) {
    const rate = cells[peer]?.rate ?? 0;
    if (rate > (bestPeer === undefined ? 0 : (cells[bestPeer]?.rate ?? 0))) bestPeer = peer;
  }
  const bestRate = bestPeer === undefined ? undefined : cells[bestPeer]?.rate;
  const ourRate = cells[ours]?.rate;
  const leastCpu = least(defined(peers.map((peer) => cells[peer]?.cpuUsPerRequest)));
  const ourCpu = cells[ours]?.cpuUsPerRequest;
  return {
    name: row.name,
    unit: isBytes ? 'bytes/s' : 'requests/s',
    cells,
    bestPeer,
    ratio: ourRate !== undefined && bestRate !== undefined ? ourRate / bestRate : undefined,
    cpuRatio: ourCpu && leastCpu !== undefined ? leastCpu / ourCpu : undefined,
  };
}

/** Medians of one latency measurement. */
export function latencyCell(
  samples: readonly LatencySample[],
  failures: readonly string[],
): LatencyCell {
  const p50Us = median(samples.map((s) => s.p50Us));
  const p99Us = median(samples.map((s) => s.p99Us));
  const p999Us = median(samples.map((s) => s.p999Us));
  if (p50Us === undefined || p99Us === undefined || p999Us === undefined) {
    return { median: undefined, failures };
  }
  return { median: { p50Us, p99Us, p999Us }, failures };
}

/** The figures that the whole run comes down to. */
export function summarize(
  rows: readonly Row[],
  results: readonly RowResult[],
  latency: readonly LatencyResult[],
  ours: string,
): Summary {
  const compared = results.filter((result) => result.ratio !== undefined);
  let lowestRatio: Summary['lowestRatio'];
  for (const { name, ratio } of compared) {
    if (ratio !== undefined && ratio < (lowestRatio?.ratio ?? Number.POSITIVE_INFINITY)) {
      lowestRatio = { row: name, ratio };
    }
  }
  const deepNames = rows
    .filter((row) => isSmallAndDeep(row) && row.connectionCount === 4)
    .map((row) => row.name);
  const deep = compared.filter((result) => deepNames.includes(result.name));
  const busiest = results.find((result) => result.name === '4K randread QD64 x4');
  const ourBusiest = busiest?.cells[ours]?.rate;
  const nbdkitBusiest = busiest?.cells['nbdkit file']?.rate;
  const p99Ratios = latency
    .filter((result) => result.queueDepth === 16)
    .map((result) => {
      const ourP99 = result.cells[ours]?.median?.p99Us;
      const peers = Object.entries(result.cells).filter(([name]) => name !== ours);
      const bestP99 = least(defined(peers.map(([, cell]) => cell.median?.p99Us)));
      return ourP99 !== undefined && bestP99 !== undefined ? ourP99 / bestP99 : undefined;
    });
  const definedP99Ratios = defined(p99Ratios);
  return {
    rowCount: compared.length,
    geometricMeanRatio: geometricMean(defined(compared.map((result) => result.ratio))),
    lowestRatio,
    lowestDeepRatio: least(defined(deep.map((result) => result.ratio))),
    geometricMeanCpuRatio: geometricMean(defined(results.map((result) => result.cpuRatio))),
    ratioToNbdkitFile:
      ourBusiest !== undefined && nbdkitBusiest ? ourBusiest / nbdkitBusiest : undefined,
    p99RatioAtQd16: definedP99Ratios.length > 0 ? Math.max(...definedP99Ratios) : undefined,
  };
}
