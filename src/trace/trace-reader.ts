/** Reads a trace, record by record, so that it may be larger than memory. */

import { createReadStream } from 'node:fs';
import {
  COMMAND_DROPPED,
  FORMAT_NAME,
  FORMAT_VERSION,
  RECORD_BYTES,
  type TraceHeader,
} from './trace-format.ts';

const HEADER_BYTES_MAX = 64 * 1024;

/** A file that is no trace, or none that this program reads. The message is for people. */
export class TraceFileError extends Error {
  override readonly name = 'TraceFileError';
}

/** One request. */
export interface TraceRecord {
  /** When its reply was ready, as Unix time in ms. */
  readonly atMs: number;
  readonly latencyMs: number;
  readonly vbd: string;
  readonly client: number;
  /** NBD command number. */
  readonly command: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /** NBD error number, 0 for none. */
  readonly errno: number;
}

/** A trace that is open. */
export interface Trace {
  readonly header: TraceHeader;
  /** In the order of the file. To be read once. */
  readonly records: AsyncIterable<TraceRecord>;
  /** Requests that could not be recorded, known when all records were read. */
  droppedCount(): number;
}

/**
 * Opens a trace and reads its header. A last record that is cut short is left out.
 *
 * @throws TraceFileError when it is none, or cannot be read
 */
export async function readTrace(path: string): Promise<Trace> {
  const chunks = createReadStream(path)[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let bytes: Buffer = Buffer.alloc(0);
  const more = async (): Promise<boolean> => {
    const { value, done } = await nextChunk(chunks, path);
    if (done === true) return false;
    bytes = bytes.length === 0 ? value : Buffer.concat([bytes, value]);
    return true;
  };
  while (!bytes.includes('\n') && bytes.length < HEADER_BYTES_MAX && (await more()));
  const end = bytes.indexOf('\n');
  const header = parseHeader(path, bytes.subarray(0, Math.max(0, end)).toString());
  bytes = bytes.subarray(end + 1);
  let droppedCount = 0;
  async function* records(): AsyncGenerator<TraceRecord> {
    do {
      const whole = bytes.length - (bytes.length % RECORD_BYTES);
      for (let at = 0; at < whole; at += RECORD_BYTES) {
        const record = decode(bytes, at, header.vbds);
        if (record.command === COMMAND_DROPPED) droppedCount += record.lengthBytes;
        else yield record;
      }
      bytes = bytes.subarray(whole);
    } while (await more());
  }
  return { header, records: records(), droppedCount: () => droppedCount };
}

async function nextChunk(
  chunks: AsyncIterator<Buffer>,
  path: string,
): Promise<IteratorResult<Buffer>> {
  try {
    return await chunks.next();
  } catch (error) {
    throw new TraceFileError(`cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
}

function parseHeader(path: string, line: string): TraceHeader {
  let header: Partial<TraceHeader> = {};
  try {
    header = JSON.parse(line) as Partial<TraceHeader>;
  } catch {
    // Not even JSON: said below.
  }
  const { format, version, vbds, startedMs } = header;
  if (format !== FORMAT_NAME || !Array.isArray(vbds) || typeof startedMs !== 'number') {
    throw new TraceFileError(`${path} is no trace: give a file that \`serve --trace\` has written`);
  }
  if (version !== FORMAT_VERSION) {
    throw new TraceFileError(
      `${path} is a trace of version ${String(version)}, and this program reads ${FORMAT_VERSION}`,
    );
  }
  return { format, version, vbds, startedMs };
}

function decode(bytes: Buffer, at: number, vbds: readonly string[]): TraceRecord {
  return {
    atMs: bytes.readDoubleLE(at),
    offset: Number(bytes.readBigUInt64LE(at + 8)),
    lengthBytes: bytes.readUInt32LE(at + 16),
    latencyMs: bytes.readFloatLE(at + 20),
    client: bytes.readUInt32LE(at + 24),
    command: bytes.readUInt16LE(at + 28),
    errno: bytes.readUInt16LE(at + 30),
    vbd: vbds[bytes.readUInt16LE(at + 32)] ?? '?',
  };
}
