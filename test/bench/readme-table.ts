// The table of README's chapter on performance, made of the JSON of one run.
import { shortNumber } from './report.ts';
import type { RowResult } from './results.ts';

const HEADS = ['load', 'xenblk-nbd', 'nbdkit file', 'best peer', 'ours : best', 'CPU', 'least CPU'];

/**
 * Markdown, a row for each load: requests or bytes a second of ours, nbdkit's and the best peer's,
 * and microseconds of CPU a request of ours and of the peer that needs least.
 */
export function readmeTable(results: readonly RowResult[], ours: string): string {
  const lines = results.map((row) => {
    const { name, unit, cells, bestPeer = '', ratio } = row;
    const rate = (server: string): string => {
      const value = cells[server]?.rate;
      return value === undefined ? '-' : shortNumber(value) + (unit === 'bytes/s' ? 'B/s' : '');
    };
    const peerCosts = Object.entries(cells)
      .filter(([server]) => server !== ours)
      .map(([, cell]) => cell.cpuUsPerRequest ?? Number.POSITIVE_INFINITY);
    return [
      name,
      rate(ours),
      rate('nbdkit file'),
      `${rate(bestPeer)} (${bestPeer})`,
      ratio === undefined ? '-' : `${ratio.toFixed(2)}`,
      micros(cells[ours]?.cpuUsPerRequest),
      micros(Math.min(...peerCosts)),
    ];
  });
  const all = [HEADS, ...lines];
  const widths = HEADS.map((_, column) => Math.max(...all.map((cells) => length(cells[column]))));
  const padded = all.map((cells) => cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)));
  const rule = widths.map((width) => '-'.repeat(width));
  return [padded[0] ?? [], rule, ...padded.slice(1)]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

function length(text: string | undefined): number {
  return text?.length ?? 0;
}

function micros(value: number | undefined): string {
  return value === undefined || !Number.isFinite(value)
    ? '-'
    : `${value.toFixed(value < 10 ? 1 : 0)} us`;
}
