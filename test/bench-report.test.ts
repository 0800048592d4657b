// What the benchmark makes of its samples: medians, ratios to the best peer, means over rows, and
// that a failure is told and never counted as a figure.
import t from 'tap';
import { svgChart } from './bench/chart.ts';
import { type Sample, undisturbed } from './bench/measure.ts';
import { shortNumber, textReport } from './bench/report.ts';
import {
  Collector,
  geometricMean,
  latencyCell,
  median,
  rowResult,
  summarize,
} from './bench/results.ts';
import { ROWS } from './bench/rows.ts';

const SERVERS = ['ours', 'slow', 'fast'];

function sample(rate: number, cpuUsPerRequest: number): Sample {
  return {
    requestsPerSecond: rate,
    bytesPerSecond: rate * 4096,
    cpuUsPerRequest,
    backendCpuUsPerRequest: 1,
    residentBytes: 0,
    stolenPart: 0,
  };
}

void t.test('what was stolen from is measured again', async (t) => {
  for (const [stolen, runs, counted] of [
    [[0.01, 0], 1, 0.01],
    [[0.2, 0.03, 0], 2, 0.03],
    [[0.2, 0.1, 0.15, 0], 3, 0.1],
  ] as const) {
    let count = 0;
    const { stolenPart } = await undisturbed(() => {
      const next = { ...sample(1, 1), stolenPart: stolen[count] ?? 1 };
      count += 1;
      return Promise.resolve(next);
    });
    t.strictSame([count, stolenPart], [runs, counted]);
  }
});

void t.test('medians and means', async (t) => {
  t.equal(median([]), undefined);
  t.equal(median([7]), 7);
  t.equal(median([9, 1, 5]), 5);
  t.equal(median([9, 1, 5, 6]), 5.5);
  t.equal(geometricMean([]), undefined);
  t.equal(geometricMean([2, 8]), 4);
  t.equal(shortNumber(183_412), '183k');
  t.equal(shortNumber(2_406_000_000), '2.41G');
  t.equal(shortNumber(3.256), '3.26');
});

void t.test('the rows are the eighteen that are promised', async (t) => {
  t.equal(ROWS.length, 18);
  t.equal(new Set(ROWS.map((row) => row.name)).size, 18, 'each has a name of its own');
  t.equal(ROWS.filter((row) => row.kind === 'copy').length, 2);
});

void t.test('a row is compared with the best of the others', async (t) => {
  const [row] = ROWS;
  if (!row) throw new Error('no rows');
  const collector = new Collector<Sample>();
  for (const rate of [300, 100, 200]) collector.add(row.name, 'ours', sample(rate, 4));
  for (const rate of [50, 60, 70]) collector.add(row.name, 'slow', sample(rate, 6));
  for (const rate of [100, 160, 90]) collector.add(row.name, 'fast', sample(rate, 10));
  const result = rowResult(row, SERVERS, 'ours', collector);
  t.equal(result.bestPeer, 'fast');
  t.equal(result.ratio, 2, 'median 200 over median 100');
  t.equal(result.cpuRatio, 1.5, 'the most thrifty peer need not be the fastest');
  const summary = summarize(ROWS, [result], [], 'ours');
  t.equal(summary.rowCount, 1);
  t.equal(summary.geometricMeanRatio, 2);
  t.equal(summary.lowestDeepRatio, undefined, 'nothing is said of rows that were not run');
});

void t.test('failures are told, and no figure is made up', async (t) => {
  const [row] = ROWS;
  if (!row) throw new Error('no rows');
  const collector = new Collector<Sample>();
  collector.addFailure(row.name, 'ours', 'it <died>');
  collector.addFailure(row.name, 'ours', 'it <died>');
  collector.add(row.name, 'fast', sample(100, 1));
  const result = rowResult(row, SERVERS, 'ours', collector);
  t.equal(result.ratio, undefined);
  t.equal(result.bestPeer, 'fast');
  const results = [result];
  const text = textReport({
    results,
    latency: [{ queueDepth: 1, placement: 'anywhere', cells: { ours: latencyCell([], ['late']) } }],
    summary: summarize(ROWS, results, [], 'ours'),
    servers: SERVERS,
    ours: 'ours',
    residentBytes: {},
    absent: { other: 'no other: apt-get install other' },
  });
  t.match(text, '! ours: it <died>');
  t.match(text, '! ours: late');
  t.match(text, 'missing: other (no other: apt-get install other)');
  t.notMatch(text, 'NaN');
  const svg = svgChart({ results, servers: SERVERS, ours: 'ours', subtitle: 'a <machine>' });
  t.match(svg, 'failed');
  t.notMatch(svg, /NaN|Infinity|<machine>/);
});
