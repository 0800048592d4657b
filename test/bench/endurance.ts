// Our server under load for long: does its memory grow, and do its lanes make garbage? It runs with
// V8's own trace of collections; a lane that allocates for each request would be in it thousands of
// times over.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { XENBLK_NBD } from '../support/daemon.ts';
import { unixUri } from '../support/nbd-server.ts';
import { readResidentMemory } from '../support/proc-stat.ts';
import { BackgroundProgram, mustRun, words } from '../support/program.ts';

const READY_TIMEOUT_MS = 60_000;
const SAMPLE_MS = 1000;
/** Of the time, at the start: buffers and compiled code reach their size. */
const WARM_UP_PART = 0.1;
const CONNECTIONS = 16;
const GRACE_MS = 60_000;

export interface EnduranceResult {
  readonly seconds: number;
  readonly requests: number;
  /** Collections of all threads but the main one, after warming up. */
  readonly workerCollections: number;
  readonly mainCollections: number;
  /** Medians of resident memory over the tenth of the time after warming up, and the last tenth. */
  readonly earlyResidentBytes: number;
  readonly lateResidentBytes: number;
  readonly peakResidentBytes: number;
}

/** What fio did, of its report, before which its nbd engine prints lines of its own. */
function requestsOf(output: string): number {
  const text = readFileSync(output, 'utf8');
  const [job] = JSON.parse(text.slice(text.indexOf('{'))).jobs;
  if (job.error !== 0) throw new Error(`fio reports error ${job.error}`);
  return job.read.total_ios + job.write.total_ios;
}

function middleOf(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >>> 1] ?? Number.NaN;
}

/** Isolates in V8's trace of collections: `[PID:0xISOLATE]  123 ms: Scavenge ...`. */
function collections(trace: string): string[] {
  return [...trace.matchAll(/^\[\d+:(0x[0-9a-f]+)\]/gm)].map((match) => match[1] ?? '');
}

/** Reads and writes of 4 KiB, half and half, on 16 connections of a simulated disk. */
export async function endure(folder: string, seconds: number): Promise<EnduranceResult> {
  const unixPath = join(folder, 'endurance.sock');
  const serve = [
    '--trace-gc',
    XENBLK_NBD,
    'serve',
    `--unix=${unixPath}`,
    ...words('--simulate 256M'),
    ...words('--simulate-features ring-page-order=2,indirect=256,persistent,flush'),
  ];
  const daemon = new BackgroundProgram(process.execPath, serve);
  try {
    await daemon.waitForOutput(
      (stdout) => (stdout.includes('ready: ') ? true : undefined),
      READY_TIMEOUT_MS,
    );
    // Whoever collects first is the main thread, which loads the program.
    const main = collections(daemon.stdout)[0];
    const output = join(folder, 'endurance.json');
    const load = mustRun(
      'fio',
      [
        ...words('--name=endurance --ioengine=nbd --thread --group_reporting --time_based'),
        ...words('--rw=randrw --bs=4k --iodepth=4 --output-format=json --gtod_reduce=1'),
        `--uri=${unixUri(unixPath)}`,
        `--numjobs=${CONNECTIONS}`,
        `--runtime=${seconds}`,
        `--output=${output}`,
      ],
      { timeoutMs: seconds * 1000 + GRACE_MS },
    );
    const residents: number[] = [];
    let warmTrace = '';
    const samplesWanted = Math.floor((seconds * 1000) / SAMPLE_MS);
    const timer = setInterval(() => {
      if (daemon.result !== undefined) return;
      residents.push(readResidentMemory(daemon.pid).nowBytes);
      if (residents.length === Math.ceil(samplesWanted * WARM_UP_PART)) warmTrace = daemon.stdout;
    }, SAMPLE_MS);
    try {
      await load;
    } finally {
      clearInterval(timer);
    }
    const seen = collections(daemon.stdout.slice(warmTrace.length));
    const tenth = Math.max(1, Math.floor(residents.length * WARM_UP_PART));
    return {
      seconds,
      requests: requestsOf(output),
      workerCollections: seen.filter((isolate) => isolate !== main).length,
      mainCollections: seen.filter((isolate) => isolate === main).length,
      earlyResidentBytes: middleOf(residents.slice(tenth, 2 * tenth)),
      lateResidentBytes: middleOf(residents.slice(-tenth)),
      peakResidentBytes: Math.max(...residents),
    };
  } finally {
    daemon.kill('SIGTERM');
    await daemon.waitForEnd(GRACE_MS);
  }
}

const MIB = 2 ** 20;
/** Most that a server of ours may hold in memory under this load. */
const RESIDENT_MIB_MAX = 150;
/** How much more it may hold at the end than at the start. */
const GROWTH_MAX = 0.1;

/** The result as lines of text. */
export function enduranceReport(result: EnduranceResult): string {
  const { seconds, requests, workerCollections, mainCollections } = result;
  const early = result.earlyResidentBytes / MIB;
  const late = result.lateResidentBytes / MIB;
  const peak = result.peakResidentBytes / MIB;
  const isFlat = late <= early * (1 + GROWTH_MAX);
  return [
    `${seconds} s of 4K reads and writes, QD4 x${CONNECTIONS}, a ring of 4 pages: ${requests} requests`,
    `garbage collections in lanes (and the simulated backend): ${workerCollections} ` +
      `(none: ${workerCollections === 0 ? 'met' : 'NOT met'}); in the main thread: ${mainCollections}`,
    `resident memory: ${early.toFixed(0)} MiB early, ${late.toFixed(0)} MiB at the end ` +
      `(at most 10 % more: ${isFlat ? 'met' : 'NOT met'}), ${peak.toFixed(0)} MiB at the most ` +
      `(below ${RESIDENT_MIB_MAX}: ${peak < RESIDENT_MIB_MAX ? 'met' : 'NOT met'})`,
  ].join('\n');
}
