// `npm run bench`: ours against the NBD servers that people use, on the same bytes, in one run.
//
// All servers of a row are measured back to back in random order, rows come in random order, and
// the whole is repeated; so a slow moment of the machine does not land on one server. Each request
// to ours crosses the whole simulated Xen host, one hop more than the others make.
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDiskImage } from '../support/disk-image.ts';
import { xenblkNbd } from '../support/nbd-server.ts';
import { findProgram } from '../support/program.ts';
import { SeededRandom } from '../support/random.ts';
import { svgChart } from './chart.ts';
import { Contender } from './contender.ts';
import { type CrowdResult, crowdReport, measureCrowd } from './crowd-rows.ts';
import { type EnduranceResult, enduranceReport, endure } from './endurance.ts';
import { type FlatnessTable, flatnessReport, measureFlatness } from './flatness.ts';
import { describeMachine, type Machine } from './machine.ts';
import {
  type LatencySample,
  type LoadSettings,
  measure,
  measureLatency,
  type Placement,
  type Sample,
  undisturbed,
} from './measure.ts';
import { type BenchOptions, readBenchOptions } from './options.ts';
import { textReport } from './report.ts';
import { Collector, type LatencyResult, latencyCell, rowResult, summarize } from './results.ts';

const OURS = xenblkNbd.name;
const MIB = 2 ** 20;
const LATENCY_DEPTHS = [1, 16];
const PROGRAMS = ['fio', 'nbdcopy', 'taskset'];

/** What was measured of all contenders. */
interface Measurements {
  readonly throughput: Collector<Sample>;
  readonly latency: Collector<LatencySample>;
  readonly crowd: CrowdResult[];
  flatness: readonly FlatnessTable[];
  endurance: EnduranceResult | undefined;
}

/** A folder in memory with room for the disk and for the copy that nbdkit keeps. */
function scratchFolder(sizeBytes: number): string {
  const neededBytes = sizeBytes * 2.25;
  for (const parent of ['/dev/shm', tmpdir()]) {
    try {
      const { bavail, bsize } = statfsSync(parent);
      if (bavail * bsize >= neededBytes) return mkdtempSync(join(parent, 'xenblk-bench-'));
      console.log(`note: ${parent} has less than ${Math.ceil(neededBytes / MIB)} MiB free`);
    } catch {
      console.log(`note: no ${parent} here`);
    }
  }
  throw new Error(`no room for a disk of ${sizeBytes / MIB} MiB: give a smaller --size`);
}

/** What failed and, where another error is behind it, that one's first and last line. */
function failureText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const lines = error.message.split('\n').filter((line) => line.trim() !== '');
  const ends = lines.length > 1 ? [lines[0], lines.at(-1)] : lines;
  const text = ends.map((line) => line?.slice(0, 200)).join(' ... ');
  return error.cause ? `${text}: ${failureText(error.cause)}` : text;
}

/** Runs one measurement and files it, or its failure. */
async function record<T>(
  collector: Collector<T>,
  row: string,
  contender: Contender,
  work: Parameters<typeof contender.use<T>>[0],
): Promise<void> {
  try {
    collector.add(row, contender.name, await contender.use(work));
  } catch (error) {
    const text = failureText(error);
    collector.addFailure(row, contender.name, text);
    console.log(`failed: ${row}, ${contender.name}: ${text}`);
  }
}

/** Each server does everything once before it counts: programs compile, and caches fill. */
async function warmUp(
  options: BenchOptions,
  settings: LoadSettings,
  contenders: readonly Contender[],
): Promise<void> {
  for (const row of options.rows) {
    for (const contender of contenders) {
      // Who fails here fails again where it is told.
      await contender.use((server) => measure(server, row, settings)).catch(() => undefined);
    }
  }
  console.log('warmed up');
}

async function measureRows(
  options: BenchOptions,
  settings: LoadSettings,
  contenders: readonly Contender[],
  measurements: Measurements,
): Promise<void> {
  const random = new SeededRandom(options.seed);
  if (!options.isQuick) await warmUp(options, settings, contenders);
  for (let repetition = 1; repetition <= options.repetitions; repetition++) {
    for (const [index, row] of random.shuffled(options.rows).entries()) {
      for (const contender of random.shuffled(contenders)) {
        await record(measurements.throughput, row.name, contender, async (server) => {
          const run = (): Promise<Sample> => measure(server, row, settings);
          const sample = await (options.isQuick ? run() : undisturbed(run));
          const { residentBytes } = sample;
          contender.peakResidentBytes = Math.max(contender.peakResidentBytes, residentBytes);
          return sample;
        });
      }
      const done = `${index + 1}/${options.rows.length}`;
      console.log(`repetition ${repetition}/${options.repetitions}, row ${done}: ${row.name}`);
    }
  }
}

/** Pinned to a core each where there are two, and to one core together. */
function placements(isQuick: boolean): Placement[] {
  const together = { name: 'on one core', serverCpus: '0', clientCpus: '0' };
  if (availableParallelism() < 2) return [together];
  const apart = { name: 'on a core each', serverCpus: '0', clientCpus: '1' };
  return isQuick ? [apart] : [apart, together];
}

const latencyKey = (depth: number, placement: Placement): string => `QD${depth} ${placement.name}`;

async function measureLatencies(
  options: BenchOptions,
  settings: LoadSettings,
  contenders: readonly Contender[],
  measurements: Measurements,
): Promise<void> {
  const random = new SeededRandom(options.seed + 1);
  for (let repetition = 1; repetition <= options.repetitions; repetition++) {
    for (const depth of random.shuffled(LATENCY_DEPTHS)) {
      for (const placement of random.shuffled(placements(options.isQuick))) {
        const key = latencyKey(depth, placement);
        for (const contender of random.shuffled(contenders)) {
          await record(measurements.latency, key, contender, (server) =>
            measureLatency(server, depth, placement, settings),
          );
        }
        console.log(`repetition ${repetition}/${options.repetitions}, latency: ${key}`);
      }
    }
  }
}

function latencyResults(
  options: BenchOptions,
  contenders: readonly Contender[],
  collector: Collector<LatencySample>,
): LatencyResult[] {
  return LATENCY_DEPTHS.flatMap((queueDepth) =>
    placements(options.isQuick).map((placement) => {
      const key = latencyKey(queueDepth, placement);
      const cells = contenders.map(({ name }) => [
        name,
        latencyCell(collector.samples(key, name), collector.failures(key, name)),
      ]);
      return { queueDepth, placement: placement.name, cells: Object.fromEntries(cells) };
    }),
  );
}

/** Prints and writes everything. Returns whether our own server did all that was asked of it. */
function publish(
  options: BenchOptions,
  machine: Machine,
  contenders: readonly Contender[],
  absent: Readonly<Record<string, string>>,
  measurements: Measurements,
): boolean {
  const servers = contenders.map((contender) => contender.name);
  const results = options.rows.map((row) => rowResult(row, servers, OURS, measurements.throughput));
  const latency = options.withLatency
    ? latencyResults(options, contenders, measurements.latency)
    : [];
  const summary = summarize(options.rows, results, latency, OURS);
  const residentBytes = Object.fromEntries(
    contenders.map((contender) => [contender.name, contender.peakResidentBytes]),
  );
  const report = { results, latency, summary, servers, ours: OURS, residentBytes, absent };
  if (results.length > 0) console.log(`\n${textReport(report)}`);
  const { crowd, flatness, endurance } = measurements;
  if (crowd.length > 0) console.log(`\n${crowdReport(crowd)}`);
  if (flatness.length > 0) console.log(`\n${flatnessReport(flatness)}`);
  if (endurance !== undefined) console.log(`\n${enduranceReport(endurance)}`);
  const { repetitions, seconds, sizeBytes, seed, oursArgs } = options;
  if (options.jsonPath !== undefined) {
    const settings = { repetitions, seconds, sizeBytes, seed, oursArgs };
    const document = { machine, settings, ...report, crowd, flatness, endurance };
    writeFileSync(options.jsonPath, `${JSON.stringify(document, undefined, 1)}\n`);
  }
  if (options.svgPath !== undefined) {
    const { cpu, cpuCount, kernel, node, date } = machine;
    const subtitle = `${cpuCount} cores of ${cpu}, Linux ${kernel}, Node ${node}, ${date}`;
    writeFileSync(options.svgPath, svgChart({ results, servers, ours: OURS, subtitle }));
  }
  const ourCells = [...results, ...latency].map((result) => result.cells[OURS]);
  return ourCells.every((cell) => cell === undefined || cell.failures.length === 0);
}

async function main(): Promise<number> {
  const options = readBenchOptions();
  const missing = PROGRAMS.filter((program) => !findProgram(program));
  if (missing.length > 0) {
    console.error(`no ${missing.join(', ')}: apt-get install fio libnbd-bin util-linux`);
    return 1;
  }
  const folder = scratchFolder(options.sizeBytes);
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'disk.raw');
  createDiskImage(file, options.sizeBytes, 1);

  const all = options.servers.map((kind, index) => {
    const extraArgs = kind === xenblkNbd ? options.oursArgs : [];
    return new Contender(kind, { file, unixPath: join(folder, `${index}.sock`), extraArgs });
  });
  const absent: Record<string, string> = {};
  for (const { name, absence } of all) if (absence !== undefined) absent[name] = absence;
  const contenders: Contender[] = [];
  for (const contender of all) {
    if (contender.absence !== undefined) continue;
    try {
      await contender.use(async () => {});
      contenders.push(contender);
    } catch (error) {
      absent[contender.name] = `it does not start: ${failureText(error)}`;
    }
  }
  for (const [name, why] of Object.entries(absent)) console.log(`missing: ${name} (${why})`);

  const machine = await describeMachine(['fio', 'nbdkit', 'qemu-nbd', 'nbd-server', 'nbdcopy']);
  console.log(
    `bench: ${options.rows.length} rows, ${options.repetitions} repetitions of ` +
      `${options.seconds} s, a disk of ${options.sizeBytes / MIB} MiB in ${folder}, ` +
      `seed ${options.seed}`,
  );
  const settings: LoadSettings = { seconds: options.seconds, sizeBytes: options.sizeBytes, folder };
  const measurements: Measurements = {
    throughput: new Collector(),
    latency: new Collector(),
    crowd: [],
    flatness: [],
    endurance: undefined,
  };
  await measureRows(options, settings, contenders, measurements);
  if (options.withLatency) await measureLatencies(options, settings, contenders, measurements);
  const ours = contenders.find(({ name }) => name === OURS);
  if (options.withCrowd && ours !== undefined) {
    const crowd = await ours.use((server) =>
      measureCrowd(server, ours.unixPath, settings, options.repetitions),
    );
    measurements.crowd.push(...crowd);
  }
  if (options.withFlatness) {
    measurements.flatness = await measureFlatness(settings, 2 * options.repetitions);
  }
  if (options.enduranceSeconds !== undefined) {
    measurements.endurance = await endure(folder, options.enduranceSeconds);
  }
  for (const contender of contenders) {
    try {
      await contender.stop();
    } catch (error) {
      measurements.throughput.addFailure('stop', contender.name, failureText(error));
      console.log(`failed: stop of ${contender.name}: ${failureText(error)}`);
    }
  }
  const isOursWhole = publish(options, machine, contenders, absent, measurements);
  return isOursWhole && absent[OURS] === undefined ? 0 : 1;
}

process.exit(await main());
