/**
 * Writes a trace. Lanes leave their records in shared memory, which is emptied here a few times a
 * second. When the file cannot be written, or not fast enough, the trace suffers and never the I/O.
 */

import { createWriteStream, type WriteStream } from 'node:fs';
import { TraceField, TraceRing } from '../dataplane/index.ts';
import {
  COMMAND_DROPPED,
  FORMAT_NAME,
  FORMAT_VERSION,
  RECORD_BYTES,
  type TraceHeader,
} from './trace-format.ts';

const DRAIN_MS = 100;
/** What may wait for a slow disk. */
const UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024;
const RECORDS_PER_WRITE = 4096;

/** Who hears of trouble. */
export interface TraceWriterEvents {
  /** It ended early, and why; nothing is recorded any more. */
  stopped(reason: string): void;
}

interface TracedLane {
  readonly ring: TraceRing;
  readonly vbdIndex: number;
}

/** The trace of a daemon. */
export class TraceWriter {
  readonly #stream: WriteStream;
  readonly #events: TraceWriterEvents;
  readonly #vbds: string[] = [];
  readonly #lanes: TracedLane[] = [];
  #timer: NodeJS.Timeout | undefined;
  #hasFailed = false;
  #buffer: Buffer = Buffer.alloc(RECORDS_PER_WRITE * RECORD_BYTES);
  #filledBytes = 0;

  constructor(path: string, events: TraceWriterEvents) {
    this.#events = events;
    // Requests of clients are nobody else's business.
    this.#stream = createWriteStream(path, { mode: 0o600 });
    this.#stream.on('error', (error) => this.#fail(error.message));
  }

  /** The memory in which a lane of `vbd` leaves its records. Before {@link start}. */
  addLane(vbd: string): SharedArrayBuffer {
    if (!this.#vbds.includes(vbd)) this.#vbds.push(vbd);
    const ring = new TraceRing();
    this.#lanes.push({ ring, vbdIndex: this.#vbds.indexOf(vbd) });
    return ring.shared;
  }

  /** Writes the header, now that all vbds are known, and begins. */
  start(): void {
    const header: TraceHeader = {
      format: FORMAT_NAME,
      version: FORMAT_VERSION,
      startedMs: Date.now(),
      vbds: this.#vbds,
    };
    this.#stream.write(`${JSON.stringify(header)}\n`);
    this.#timer = setInterval(() => this.#drain(), DRAIN_MS);
    this.#timer.unref();
  }

  /** Writes what is left; resolves when it is in the file, or cannot be. */
  async close(): Promise<void> {
    if (this.#timer !== undefined) this.#drain();
    clearInterval(this.#timer);
    if (this.#hasFailed) return;
    await new Promise<void>((resolve) => {
      this.#stream.once('close', () => resolve());
      this.#stream.end();
    });
  }

  #drain(): void {
    const isFull = this.#stream.writableLength > UNWRITTEN_BYTES_MAX;
    for (const { ring, vbdIndex } of this.#lanes) {
      let droppedCount = 0;
      ring.drain((record) => {
        if (isFull) droppedCount += 1;
        else this.#put(record, vbdIndex);
      });
      droppedCount += ring.takeDropped();
      if (droppedCount > 0) this.#putDropped(droppedCount, vbdIndex);
    }
    this.#flush();
  }

  #put(record: Float64Array, vbdIndex: number): void {
    const field = (position: number): number => record[position] ?? 0;
    const at = this.#place();
    const buffer = this.#buffer;
    buffer.writeDoubleLE(field(TraceField.AT_MS), at);
    buffer.writeBigUInt64LE(BigInt(field(TraceField.OFFSET)), at + 8);
    buffer.writeUInt32LE(field(TraceField.LENGTH_BYTES), at + 16);
    buffer.writeFloatLE(field(TraceField.LATENCY_MS), at + 20);
    buffer.writeUInt32LE(field(TraceField.CLIENT) >>> 0, at + 24);
    buffer.writeUInt16LE(field(TraceField.COMMAND) & 0x7fff, at + 28);
    buffer.writeUInt16LE(field(TraceField.ERRNO), at + 30);
    buffer.writeUInt16LE(vbdIndex, at + 32);
  }

  #putDropped(count: number, vbdIndex: number): void {
    const at = this.#place();
    this.#buffer.writeDoubleLE(Date.now(), at);
    this.#buffer.writeUInt32LE(count, at + 16);
    this.#buffer.writeUInt16LE(COMMAND_DROPPED, at + 28);
    this.#buffer.writeUInt16LE(vbdIndex, at + 32);
  }

  #place(): number {
    if (this.#filledBytes === this.#buffer.length) this.#flush();
    const at = this.#filledBytes;
    this.#filledBytes += RECORD_BYTES;
    return at;
  }

  #flush(): void {
    if (this.#filledBytes === 0) return;
    if (!this.#hasFailed) this.#stream.write(this.#buffer.subarray(0, this.#filledBytes));
    // The stream still has the old one.
    this.#buffer = Buffer.alloc(RECORDS_PER_WRITE * RECORD_BYTES);
    this.#filledBytes = 0;
  }

  #fail(reason: string): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#events.stopped(reason);
  }
}
