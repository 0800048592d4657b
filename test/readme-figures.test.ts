// Goal: the table and the summary that README shows are those of the run whose JSON and chart are
// kept beside the benchmark.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readmeTable } from './bench/readme-table.ts';
import type { RowResult, Summary } from './bench/results.ts';

interface Run {
  readonly settings: { readonly repetitions: number };
  readonly results: readonly RowResult[];
  readonly summary: Summary;
  readonly ours: string;
}

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const run = JSON.parse(readFileSync(join(root, 'test/bench/kept-run.json'), 'utf8')) as Run;

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
    t.ok(readme.includes(figure), figure);
  }
});
