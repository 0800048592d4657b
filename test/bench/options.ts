// The command line of the benchmark.
import { parseArgs } from 'node:util';
import {
  nbdkitFile,
  nbdkitMemory,
  nbdServer,
  qemuNbd,
  type ServerKind,
  xenblkNbd,
} from '../support/nbd-server.ts';
import { ROWS, type Row } from './rows.ts';

const USAGE = `usage: npm run bench -- [options]
  --quick           one short repetition, in less than two minutes
  --rows TEXT,...   only the rows whose name contains one of the texts
  --servers A,...   only these servers
  --reps N          repetitions, after one that does not count (default 4)
  --seconds S       length of each measurement (default 2)
  --size MIB        size of the disk (default 512)
  --no-latency      leave the pinned latency runs out
  --no-crowd        leave out the run beside 990 silent or slow clients
  --only-crowd      that run and nothing else
  --only-flatness   CPU of a request by connections and by size of the disk, and nothing else
  --endurance S     memory and garbage collections over S seconds of load, and nothing else
  --ours-args ARGS  further arguments for xenblk-nbd serve, separated by spaces
  --seed N          repeats the order of an earlier run
  --json FILE       writes everything that was measured
  --svg FILE        writes the chart
`;

const SERVERS: readonly ServerKind[] = [xenblkNbd, nbdkitFile, nbdkitMemory, qemuNbd, nbdServer];

export interface BenchOptions {
  readonly isQuick: boolean;
  readonly rows: readonly Row[];
  readonly servers: readonly ServerKind[];
  readonly repetitions: number;
  readonly seconds: number;
  readonly sizeBytes: number;
  readonly withLatency: boolean;
  /** Measure ten clients beside 990 others. */
  readonly withCrowd: boolean;
  /** Measure the cost of a request by connections and by size of the disk. */
  readonly withFlatness: boolean;
  /** Watch memory and collections for so long; undefined for not at all. */
  readonly enduranceSeconds: number | undefined;
  /** For `xenblk-nbd serve`. */
  readonly oursArgs: readonly string[];
  readonly seed: number;
  readonly jsonPath: string | undefined;
  readonly svgPath: string | undefined;
}

/** A positive number. @throws Error that names the option. */
function positive(option: string, text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value)) {
    throw new Error(`--${option} wants a number above 0, not ${JSON.stringify(text)}`);
  }
  return value;
}

/** Those of `all` that `wanted` picks by a part of their name; all of them when it is left out. */
function pick<T extends { readonly name: string }>(
  option: string,
  all: readonly T[],
  wanted: string | undefined,
): T[] {
  if (wanted === undefined) return [...all];
  const texts = wanted.split(',').map((text) => text.trim());
  const picked = all.filter((item) => texts.some((text) => item.name.includes(text)));
  if (picked.length === 0) {
    const names = all.map((item) => item.name).join(', ');
    throw new Error(`--${option} ${wanted} fits none of: ${names}`);
  }
  return picked;
}

function read(): BenchOptions {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      rows: { type: 'string' },
      servers: { type: 'string' },
      reps: { type: 'string' },
      seconds: { type: 'string' },
      size: { type: 'string', default: '512' },
      'no-latency': { type: 'boolean', default: false },
      'no-crowd': { type: 'boolean', default: false },
      'only-crowd': { type: 'boolean', default: false },
      'only-flatness': { type: 'boolean', default: false },
      endurance: { type: 'string' },
      'ours-args': { type: 'string', default: '' },
      seed: { type: 'string' },
      json: { type: 'string' },
      svg: { type: 'string' },
    },
  });
  const isQuick = values.quick;
  const isOnlyCrowd = values['only-crowd'];
  const isOnlyFlatness = values['only-flatness'];
  const isPart = isOnlyCrowd || isOnlyFlatness || values.endurance !== undefined;
  return {
    isQuick,
    rows: isPart ? [] : pick('rows', ROWS, values.rows),
    servers: pick('servers', SERVERS, values.servers),
    repetitions: positive('reps', values.reps ?? (isQuick ? '1' : '4')),
    seconds: positive('seconds', values.seconds ?? (isQuick ? '0.6' : '2')),
    sizeBytes: positive('size', values.size) * 2 ** 20,
    withLatency: !values['no-latency'] && !isPart,
    withCrowd: isPart ? isOnlyCrowd : !values['no-crowd'],
    withFlatness: isPart ? isOnlyFlatness : !isQuick && values.rows === undefined,
    enduranceSeconds:
      values.endurance === undefined ? undefined : positive('endurance', values.endurance),
    oursArgs: values['ours-args'].split(' ').filter((word) => word !== ''),
    seed: values.seed === undefined ? Date.now() % 1_000_000 : Number(values.seed),
    jsonPath: values.json,
    svgPath: values.svg,
  };
}

/** Reads the command line; ends the process with exit code 2 when it makes no sense. */
export function readBenchOptions(): BenchOptions {
  try {
    return read();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exit(2);
  }
}
