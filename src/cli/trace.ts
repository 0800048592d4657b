/** `xenblk-nbd trace FILE`: what `serve --trace` has recorded. */

import { Command } from 'commander';
import { DaemonError, UsageError } from '../daemon/index.ts';
import {
  formatRecord,
  readTrace,
  summariseTrace,
  type Trace,
  TraceFileError,
  type TraceRecord,
  toFioLog,
} from '../trace/index.ts';

interface Flags {
  readonly print?: true;
  readonly json?: true;
  readonly fio?: true;
  readonly vbd?: string;
}

/** Lines that are written at once. */
const LINES_PER_WRITE = 1000;

export function traceCommand(): Command {
  return new Command('trace')
    .description(
      'sum up what `serve --trace` has recorded, print it, or turn it into a log for fio',
    )
    .argument('<file>', 'the trace')
    .option('--print', 'a line for each request')
    .option('--json', 'a JSON object for each request')
    .option('--fio', 'an iolog that fio replays with --read_iolog and --replay_redirect')
    .option('--vbd <name>', 'only requests of this vbd')
    .action(run);
}

async function run(file: string, flags: Flags): Promise<void> {
  if ([flags.print, flags.json, flags.fio].filter((flag) => flag === true).length > 1) {
    throw new UsageError('--print, --json and --fio each say how to print: give one of them');
  }
  // `trace --print FILE | head` has seen enough when it closes the pipe.
  process.stdout.once('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  try {
    const trace = ofVbd(await readTrace(file), flags.vbd);
    if (flags.print === true) await write(map(trace.records, formatRecord));
    else if (flags.json === true)
      await write(map(trace.records, (record) => JSON.stringify(record)));
    else if (flags.fio === true)
      await write(toFioLog(trace.records, trace.header.vbds[0] ?? 'nbd'));
    else process.stdout.write(`${await summariseTrace(trace)}\n`);
  } catch (error) {
    if (!(error instanceof TraceFileError)) throw error;
    throw new DaemonError(error.message, { cause: error });
  }
}

function ofVbd(trace: Trace, vbd: string | undefined): Trace {
  if (vbd === undefined) return trace;
  const { vbds } = trace.header;
  if (!vbds.includes(vbd)) {
    throw new UsageError(`--vbd ${vbd}: the trace is about ${vbds.join(', ') || 'no vbd'}`);
  }
  const { records } = trace;
  async function* chosen(): AsyncGenerator<TraceRecord> {
    for await (const record of records) if (record.vbd === vbd) yield record;
  }
  return { ...trace, header: { ...trace.header, vbds: [vbd] }, records: chosen() };
}

async function* map<T>(items: AsyncIterable<T>, line: (item: T) => string): AsyncGenerator<string> {
  for await (const item of items) yield line(item);
}

async function write(lines: AsyncIterable<string>): Promise<void> {
  let batch: string[] = [];
  for await (const line of lines) {
    batch.push(line);
    if (batch.length < LINES_PER_WRITE) continue;
    await writeAll(batch);
    batch = [];
  }
  await writeAll(batch);
}

/** A pipe that reads slowly makes us wait, and memory does not grow. */
async function writeAll(lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return;
  const isTaken = process.stdout.write(`${lines.join('\n')}\n`);
  if (!isTaken) await new Promise((resolve) => process.stdout.once('drain', resolve));
}
