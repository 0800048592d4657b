// The result as text: one table of rates, one of CPU, one of latency, and the summary with the
// targets beside it.
import type { LatencyResult, RowResult, Summary } from './results.ts';

/** A number short enough for a table: 183k, 2.41G, 950. */
export function shortNumber(value: number): string {
  const scales = [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const;
  for (const [scale, letter] of scales) {
    if (value >= scale) {
      const scaled = value / scale;
      return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)}${letter}`;
    }
  }
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

function shown(value: number | undefined, format: (value: number) => string): string {
  return value === undefined ? '-' : format(value);
}

const times = (value: number): string => `${value.toFixed(2)}x`;
const micros = (value: number): string => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

/** Columns padded to their widest entry; the first is left-aligned, the others right. */
function table(lines: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const line of lines) {
    for (const [i, text] of line.entries()) widths[i] = Math.max(widths[i] ?? 0, text.length);
  }
  return lines
    .map((line) =>
      line
        .map((text, i) => (i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function rateTable(results: readonly RowResult[], servers: readonly string[]): string {
  const lines = [['requests/s, or bytes/s', ...servers, 'ours : best']];
  for (const result of results) {
    const unit = result.unit === 'bytes/s' ? 'B/s' : '';
    const rates = servers.map((server) => {
      const cell = result.cells[server];
      const failed = cell && cell.failures.length > 0 ? '!' : '';
      return failed + shown(cell?.rate, (rate) => shortNumber(rate) + unit);
    });
    lines.push([result.name, ...rates, shown(result.ratio, times)]);
  }
  return table(lines);
}

function cpuTable(results: readonly RowResult[], servers: readonly string[], ours: string): string {
  const lines = [['CPU us per request', ...servers, '(sim. backend)', 'best : ours']];
  for (const result of results) {
    const costs = servers.map((server) => shown(result.cells[server]?.cpuUsPerRequest, micros));
    const backend = shown(result.cells[ours]?.backendCpuUsPerRequest, micros);
    lines.push([result.name, ...costs, backend, shown(result.cpuRatio, times)]);
  }
  return table(lines);
}

function latencyTable(latency: readonly LatencyResult[], servers: readonly string[]): string {
  const lines = [['p50 / p99 / p99.9 us, 4K randread', ...servers]];
  for (const result of latency) {
    const cells = servers.map((server) => {
      const figures = result.cells[server]?.median;
      if (!figures) return '-';
      return [figures.p50Us, figures.p99Us, figures.p999Us].map((us) => us.toFixed(0)).join(' / ');
    });
    lines.push([`QD${result.queueDepth} ${result.placement}`, ...cells]);
  }
  return table(lines);
}

function summaryTable(summary: Summary): string {
  const line = (
    what: string,
    value: number | undefined,
    target: string,
    isMet: (value: number) => boolean,
  ): string[] => [
    what,
    shown(value, times),
    target,
    value === undefined ? '-' : isMet(value) ? 'met' : 'NOT met',
  ];
  const lowest = summary.lowestRatio;
  return table([
    ['against the best peer of each row', 'measured', 'target', ''],
    line(
      `lowest row${lowest ? ` (${lowest.row})` : ''}`,
      lowest?.ratio,
      'at least 1.00x',
      (value) => value >= 1,
    ),
    line(
      `geometric mean of ${summary.rowCount} rows`,
      summary.geometricMeanRatio,
      'at least 1.50x',
      (value) => value >= 1.5,
    ),
    line(
      'lowest 4K row, QD >= 16, 4 connections',
      summary.lowestDeepRatio,
      'at least 1.80x',
      (value) => value >= 1.8,
    ),
    line(
      'least CPU of a peer : ours, geometric mean',
      summary.geometricMeanCpuRatio,
      'at least 2.00x',
      (value) => value >= 2,
    ),
    line(
      'p99 at QD16, ours : best',
      summary.p99RatioAtQd16,
      'at most 1.00x',
      (value) => value <= 1,
    ),
    line(
      '4K randread QD64 x4, ours : nbdkit file',
      summary.ratioToNbdkitFile,
      'at least 1.00x',
      (value) => value >= 1,
    ),
  ]);
}

export interface ReportInput {
  readonly results: readonly RowResult[];
  readonly latency: readonly LatencyResult[];
  readonly summary: Summary;
  readonly servers: readonly string[];
  readonly ours: string;
  /** Most resident bytes of each server during a load. */
  readonly residentBytes: Readonly<Record<string, number>>;
  /** Servers that could not take part, and why. */
  readonly absent: Readonly<Record<string, string>>;
}

/** One line for each server and kind of failure, with the rows where it was seen. */
function failureLines(results: readonly RowResult[], latency: readonly LatencyResult[]): string[] {
  const rows = [
    ...results.map(({ name, cells }) => ({ name, cells })),
    ...latency.map((entry) => ({ name: `QD${entry.queueDepth} latency`, cells: entry.cells })),
  ];
  const seen = new Map<string, string[]>();
  for (const { name, cells } of rows) {
    for (const [server, cell] of Object.entries(cells)) {
      for (const failure of cell.failures) {
        const kind = `! ${server}: ${failure}`;
        seen.set(kind, [...(seen.get(kind) ?? []), name]);
      }
    }
  }
  return [...seen].map(([kind, names]) => `${kind}\n    in: ${[...new Set(names)].join(', ')}`);
}

/** The whole report, for a terminal. */
export function textReport(input: ReportInput): string {
  const { results, servers, ours } = input;
  const resident = [['resident memory under load', 'MiB']];
  for (const server of servers) {
    const bytes = input.residentBytes[server];
    resident.push([server, shown(bytes, (value) => (value / 2 ** 20).toFixed(0))]);
  }
  const parts = [
    rateTable(results, servers),
    cpuTable(results, servers, ours),
    ...(input.latency.length > 0 ? [latencyTable(input.latency, servers)] : []),
    table(resident),
    summaryTable(input.summary),
  ];
  const failures = failureLines(results, input.latency);
  if (failures.length > 0) parts.push(failures.join('\n'));
  const absent = Object.entries(input.absent).map(([server, why]) => `missing: ${server} (${why})`);
  if (absent.length > 0) parts.push(absent.join('\n'));
  return parts.join('\n\n');
}
