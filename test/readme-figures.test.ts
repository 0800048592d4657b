// Goal: the table and the summary that README shows are those of the run whose JSON and chart are
// kept beside the benchmark.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { CrowdResult } from './bench/crowd-rows.ts';
import type { FlatnessTable } from './bench/flatness.ts';
import { readmeTable } from './bench/readme-table.ts';
import type { RowResult, Summary } from './bench/results.ts';

interface Run {
  readonly settings: { readonly repetitions: number };
  readonly results: readonly RowResult[];
  readonly summary: Summary;
  readonly ours: string;
  readonly residentBytes: Readonly<Record<string, number>>;
  readonly crowd: readonly CrowdResult[];
  readonly flatness: readonly FlatnessTable[];
}

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const prose = readme.replaceAll('\n', ' ');
const run = JSON.parse(readFileSync(join(root, 'test/bench/kept-run.json'), 'utf8')) as Run;

/** Whether README says so, on however many lines. */
function says(t: Test, words: string): void {
  t.ok(prose.includes(words), words);
}

void t.test('the table of loads', async (t) => {
  const table = readmeTable(run.results, run.ours);
  t.equal(run.results.length, 18, 'the whole benchmark');
  t.ok(run.settings.repetitions >= 4, 'more than luck');
  t.ok(readme.includes(table), `README has this table:\n${table}`);
});

void t.test('the summary', async (t) => {
  const { geometricMeanRatio = 0, geometricMeanCpuRatio = 0, p99RatioAtQd16 = 0 } = run.summary;
  for (const figure of [
    `${geometricMeanRatio.toFixed(2)} times as much`,
    `1/${geometricMeanCpuRatio.toFixed(2)} of the least CPU`,
    `${p99RatioAtQd16.toFixed(2)} of the best`,
  ]) {
    says(t, figure);
  }
});

void t.test('memory, and the crowd', async (t) => {
  const mib = (server: string): string => ((run.residentBytes[server] ?? 0) / 2 ** 20).toFixed(0);
  says(t, `It held ${mib(run.ours)} MiB of memory, where nbdkit file held ${mib('nbdkit file')}.`);
  const [reads, writes] = run.crowd.map(({ ratio }) => ratio.toFixed(2));
  says(t, `ten busy ones kept ${reads} of their reads and ${writes} of their writes`);
});

void t.test('what a read costs, by connections and by size of the disk', async (t) => {
  const [inAll = [], ofEach = [], sizes = []] = run.flatness.map(({ points }) =>
    points.map(({ cpuUsPerRequest }) => cpuUsPerRequest.toFixed(1)),
  );
  says(
    t,
    `a read took ${ofEach[0]} us of CPU on one connection, ${ofEach[1]} us on 4, ` +
      `${ofEach[2]} us on 16 and ${ofEach[3]} us on 64.`,
  );
  const last = inAll.pop();
  const range = (costs: string[]): string => {
    const sorted = costs.toSorted((one, other) => Number(one) - Number(other));
    return `${sorted[0]} to ${sorted.at(-1)} us`;
  };
  says(t, `it took ${range(inAll)} on up to 16 connections and ${last} us on 64`);
  says(t, `From disks of 1 GiB to 8 TiB it took ${range(sizes)}.`);
});
