// Reads that fio makes on a server in dom0, and what they cost it. A run passes over the disk at
// most once, so that it never reads what it has brought into dom0's page cache itself.
import { readFileSync, writeFileSync } from 'node:fs';
import { readCpuTime } from '../../support/proc-stat.ts';
import { mustRun, words } from '../../support/program.ts';

export interface ReadLoad {
  readonly name: string;
  readonly mode: 'randread' | 'read';
  readonly blockBytes: number;
  readonly queueDepth: number;
  /** Whether its figure is bytes a second rather than requests a second. */
  readonly isCountedInBytes: boolean;
}

export interface ReadSample {
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly requests: number;
  /** CPU of the server's own process; what kernel threads do for it is not in it. */
  readonly cpuUsPerRequest: number;
  /** CPU of fio. */
  readonly generatorCpuUsPerRequest: number;
}

const OUTPUT = '/tmp/fio.json';
/** A load of seconds may take minutes of an emulated processor that is shared. */
const TIMEOUT_MS = 300_000;

/** Takes all of dom0's page cache away that can be read again. */
export function dropPageCache(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** When a run ends, unless each block was read before: no block is read twice. */
export type ReadLimit = { readonly seconds: number } | { readonly requests: number };

/**
 * Runs a load on one connection.
 *
 * @throws Error when a request failed.
 */
export async function runReads(
  server: { readonly uri: string; readonly pid: number },
  load: ReadLoad,
  limit: ReadLimit,
): Promise<ReadSample> {
  const before = readCpuTime(server.pid, '').totalMs;
  const args = [
    ...words('--name=reads --ioengine=nbd --thread --gtod_reduce=1 --output-format=json'),
    `--uri=${server.uri}`,
    `--rw=${load.mode}`,
    `--bs=${load.blockBytes}`,
    `--iodepth=${load.queueDepth}`,
    'seconds' in limit ? `--runtime=${limit.seconds}` : `--number_ios=${limit.requests}`,
    `--output=${OUTPUT}`,
  ];
  await mustRun('fio', args, { timeoutMs: TIMEOUT_MS, cwd: '/tmp' });
  const cpuMs = readCpuTime(server.pid, '').totalMs - before;
  // The NBD engine prints a line into the same file.
  const text = readFileSync(OUTPUT, 'utf8');
  const [job] = JSON.parse(text.slice(text.indexOf('{'))).jobs;
  if (job.error !== 0) throw new Error(`fio reports error ${job.error}`);
  const { total_ios: requests, iops, bw_bytes: bytesPerSecond } = job.read;
  if (requests === 0) throw new Error('fio got no request through');
  return {
    requestsPerSecond: iops,
    bytesPerSecond,
    requests,
    cpuUsPerRequest: (cpuMs * 1000) / requests,
    // fio tells it in per cent of the time.
    generatorCpuUsPerRequest: ((job.usr_cpu + job.sys_cpu) * 1e4) / iops,
  };
}
