// One measurement: a load against a running server, with what the server spent on it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunningServer } from '../support/nbd-server.ts';
import { readCpuTime, readMachineTime, readTreeResidentBytes } from '../support/proc-stat.ts';
import { mustRun, words } from '../support/program.ts';
import type { FioRow, Row } from './rows.ts';

/** Threads of the simulated backend: another domain on real Xen, so its CPU is told apart. */
const BACKEND_THREADS = 'sim-blkback-';
/** What nbdcopy asks for at a time unless told otherwise. */
const COPY_REQUEST_BYTES = 256 * 1024;
/** A run from which more was stolen is repeated, so many times at most. */
const STOLEN_MAX = 0.03;
const RETRIES = 2;
/** Beyond the load itself: start, connect, end. */
const GRACE_MS = 30_000;

/** What one run of one row on one server gave. */
export interface Sample {
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  /** CPU of the server without the simulated backend. */
  readonly cpuUsPerRequest: number;
  /** CPU of the simulated backend; 0 for servers that have none. */
  readonly backendCpuUsPerRequest: number;
  /** Resident memory of all its processes in the middle of the run. */
  readonly residentBytes: number;
  /** Part of the machine's time that the hypervisor gave to other machines meanwhile. */
  readonly stolenPart: number;
}

export interface LatencySample {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

export interface LoadSettings {
  /** How long each load runs. */
  readonly seconds: number;
  readonly sizeBytes: number;
  /** For scratch files. */
  readonly folder: string;
}

/** A part of fio's JSON report: one direction of the first job group. */
interface FioDirection {
  readonly total_ios: number;
  readonly io_bytes: number;
  /** Milliseconds. */
  readonly runtime: number;
  readonly iops: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

async function runFio(
  uri: string,
  row: FioRow,
  settings: LoadSettings,
  extraArgs: readonly string[],
  runner: readonly string[] = [],
): Promise<FioDirection> {
  const output = join(settings.folder, 'fio.json');
  const [command = 'fio', ...args] = [
    ...runner,
    'fio',
    ...words('--name=bench --ioengine=nbd --thread --group_reporting --time_based'),
    `--uri=${uri}`,
    `--rw=${row.mode}`,
    `--bs=${row.blockBytes}`,
    `--iodepth=${row.queueDepth}`,
    `--numjobs=${row.connectionCount}`,
    // Whole seconds and fractions go by different units: fio rounds 1.5 down to 1.
    `--runtime=${Math.round(settings.seconds * 1000)}ms`,
    '--output-format=json',
    `--output=${output}`,
    ...extraArgs,
  ];
  await mustRun(command, args, {
    timeoutMs: settings.seconds * 1000 + GRACE_MS,
    cwd: settings.folder,
  });
  // The nbd engine prints a line for each connection into the same file.
  const text = readFileSync(output, 'utf8');
  const [job] = JSON.parse(text.slice(text.indexOf('{'))).jobs;
  if (job.error !== 0) throw new Error(`fio reports error ${job.error}`);
  const direction: FioDirection = row.mode.includes('write') ? job.write : job.read;
  if (direction.total_ios === 0) throw new Error('fio got no request through');
  return direction;
}

interface Work {
  readonly requests: number;
  readonly bytes: number;
  readonly seconds: number;
}

async function runLoad(uri: string, row: Row, settings: LoadSettings): Promise<Work> {
  if (row.kind === 'fio') {
    const result = await runFio(uri, row, settings, ['--gtod_reduce=1']);
    const { total_ios: requests, io_bytes: bytes } = result;
    return { requests, bytes, seconds: requests / result.iops };
  }
  // One copy of the disk may be shorter than a clock tick of the CPU accounts: copy until the
  // time is up.
  const args = [`--connections=${row.connectionCount}`, '--requests=16', uri, 'null:'];
  const startMs = performance.now();
  let copies = 0;
  do {
    await mustRun('nbdcopy', args, { timeoutMs: GRACE_MS });
    copies++;
  } while (performance.now() - startMs < settings.seconds * 1000);
  const bytes = copies * settings.sizeBytes;
  return {
    requests: bytes / COPY_REQUEST_BYTES,
    bytes,
    seconds: (performance.now() - startMs) / 1000,
  };
}

/**
 * Runs one row once.
 *
 * @throws Error when the load fails, with what its program printed.
 */
export async function measure(
  server: RunningServer,
  row: Row,
  settings: LoadSettings,
): Promise<Sample> {
  const machineBefore = readMachineTime();
  const before = readCpuTime(server.pid, BACKEND_THREADS);
  let residentBytes = 0;
  const halfTime = setTimeout(() => {
    residentBytes = readTreeResidentBytes(server.pid);
  }, settings.seconds * 500);
  let work: Work;
  try {
    work = await runLoad(server.uri, row, settings);
  } finally {
    clearTimeout(halfTime);
  }
  const after = readCpuTime(server.pid, BACKEND_THREADS);
  const machine = readMachineTime();
  const backendMs = after.apartMs - before.apartMs;
  const serverMs = after.totalMs - before.totalMs - backendMs;
  return {
    requestsPerSecond: work.requests / work.seconds,
    bytesPerSecond: work.bytes / work.seconds,
    cpuUsPerRequest: (serverMs * 1000) / work.requests,
    backendCpuUsPerRequest: (backendMs * 1000) / work.requests,
    residentBytes,
    stolenPart:
      (machine.stolenTicks - machineBefore.stolenTicks) /
      (machine.totalTicks - machineBefore.totalTicks),
  };
}

/**
 * Measures until the hypervisor lets a run alone, three times at most; the one that was robbed
 * least counts.
 */
export async function undisturbed(run: () => Promise<Sample>): Promise<Sample> {
  let best = await run();
  for (let retry = 0; retry < RETRIES && best.stolenPart > STOLEN_MAX; retry++) {
    const again = await run();
    if (again.stolenPart < best.stolenPart) best = again;
  }
  return best;
}

/** Where the server and the client run while latency is measured. */
export interface Placement {
  readonly name: string;
  /** CPU lists as taskset takes them. */
  readonly serverCpus: string;
  readonly clientCpus: string;
}

/**
 * Latency of 4 KiB random reads with server and client pinned; the scheduler's choice of cores
 * decides more than the server does otherwise.
 */
export async function measureLatency(
  server: RunningServer,
  queueDepth: number,
  placement: Placement,
  settings: LoadSettings,
): Promise<LatencySample> {
  const pinServer = (cpus: string): Promise<unknown> =>
    mustRun('taskset', ['-a', '-c', '-p', cpus, String(server.pid)]);
  const { stdout } = await mustRun('taskset', ['-c', '-p', String(server.pid)]);
  const allCpus = stdout.trim().split(' ').at(-1) ?? '0';
  await pinServer(placement.serverCpus);
  try {
    const row: FioRow = {
      kind: 'fio',
      name: '',
      mode: 'randread',
      blockBytes: 4096,
      queueDepth,
      connectionCount: 1,
    };
    const runner = ['taskset', '-c', placement.clientCpus];
    const { clat_ns: latency } = await runFio(server.uri, row, settings, [], runner);
    const atUs = (percentile: string): number => {
      const ns = latency.percentile?.[percentile];
      if (ns === undefined) throw new Error(`fio reports no percentile ${percentile}`);
      return ns / 1000;
    };
    return { p50Us: atUs('50.000000'), p99Us: atUs('99.000000'), p999Us: atUs('99.900000') };
  } finally {
    await pinServer(allCpus);
  }
}
