/**
 * The context `base:allocation`: which parts of the disk read as zeroes, as far as this process
 * knows because it wrote them. blkif tells nothing about what a disk holds, and promises nothing
 * about what a discard leaves behind, so a trim is no zeroing here, and nothing is ever a hole.
 *
 * The disk is cut into chunks; one 32-bit cell for each lives in memory that all lanes share. A
 * cell has two counters, of the data writes (trims among them) and of the whole zeroings that are
 * in progress, and two marks:
 * - ZERO: the chunk reads as zeroes, and no data write that touches it is in progress.
 * - MIXED: data may come behind, or between, the zeroes that are in progress.
 *
 *                    data writes   zeroings   MIXED                          ZERO
 *   data begins          +1           .       set                            cleared
 *   data ends            -1           .       .                              .
 *   zeroing begins        .          +1       cleared if both counts were 0  .
 *   zeroing ends well     .          -1       .                              set unless MIXED
 *   zeroing fails         .          -1       set                            cleared
 *   content unknown       .           .       set                            cleared
 *
 * Why a ZERO is true. It is set when a zeroing Z of the whole chunk ends well without MIXED. MIXED
 * is cleared only while nothing is in progress, hence not since Z began; so it was clear when Z
 * began, and nothing has set it since. No data write was in progress when Z began: each sets MIXED
 * when it begins, and what clears it needs a count of 0. None has begun since. So every data write
 * of the chunk was answered before the first part of Z was asked for, and the backend has executed
 * Z after it, in whatever order answers of the two came to their lanes. Other zeroings may have
 * come in between and do no harm, whether done by then or not: they write zeroes. ZERO is cleared
 * before anything of a later data write is asked for. Each line of the table is one
 * compare-and-swap, so lanes can be thought of as taking turns.
 *
 * What the lines rely on:
 * - A range is told of from before its first part is asked for until after its last is answered,
 *   over a recovery that asks parts again, and when the client has left. What a broken backend has
 *   not answered never ends: it may be executed at any time.
 * - A zeroing covers in part the chunks at its ends, and is a data write there: its ragged ends are
 *   read and written back, and so may carry what another write put next to them.
 * - A zeroing that is cut short, because its client has left, has failed.
 * - A backend that comes back may have lost what was acknowledged and not flushed: everything is
 *   unknown then, and so is what a zeroing in progress will leave behind, as its first part may be
 *   what was lost. The same holds when the size changes, since a disk that shrank and grew again
 *   may hold anything there. The map does not grow: what lies behind its end is unknown.
 * - Nobody else writes to the disk. A backend whose disk is shared with others in spite of that
 *   (`w!` in Xen's configuration) makes every cache of it wrong, this one as well.
 *
 * A count that has reached its limit stays there for good, and the chunk is unknown for good.
 */

import { type Extent, NbdState } from 'nbd-server-ts/protocol';
import type { LaneContext, LaneContextKind } from './lane-contexts.ts';

const ZERO = 1;
const MIXED = 2;
const ONE_ZEROING = 1 << 2;
const ZEROINGS = 0x3fff << 2;
const ONE_WRITE = 1 << 16;
/** The most data writes, and a mark that nothing will change any more. */
const FROZEN = (0x7fff << 16) | MIXED;
const WRITES_AT_LIMIT = 0x7fff << 16;

/** The cell of a chunk when a data write that touches it begins. */
export function dataBegun(cell: number): number {
  if (cell >= WRITES_AT_LIMIT) return FROZEN;
  return ((cell & ~ZERO) | MIXED) + ONE_WRITE;
}

/** The cell when such a write has ended, in whatever way. */
export function dataEnded(cell: number): number {
  return cell >= WRITES_AT_LIMIT ? FROZEN : cell - ONE_WRITE;
}

/** The cell when a zeroing of the whole chunk begins. */
export function zeroingBegun(cell: number): number {
  if (cell >= WRITES_AT_LIMIT || (cell & ZEROINGS) === ZEROINGS) return FROZEN;
  const isQuiet = (cell & ~(ZERO | MIXED)) === 0;
  return (isQuiet ? cell & ~MIXED : cell) + ONE_ZEROING;
}

/** The cell when such a zeroing has ended. */
export function zeroingEnded(cell: number, isDone: boolean): number {
  if (cell >= WRITES_AT_LIMIT) return FROZEN;
  const left = cell - ONE_ZEROING;
  if (!isDone) return (left & ~ZERO) | MIXED;
  return (left & MIXED) === 0 ? left | ZERO : left;
}

/** The cell when nobody knows what the chunk holds. */
export function forgotten(cell: number): number {
  return (cell & ~ZERO) | MIXED;
}

/** Whether the chunk reads as zeroes. */
export function isZero(cell: number): boolean {
  return (cell & ZERO) !== 0;
}

const zeroingDone = (cell: number): number => zeroingEnded(cell, true);
const zeroingFailed = (cell: number): number => zeroingEnded(cell, false);

const CHUNK_BYTES_MIN = 64 * 1024;
/** 1 MiB of cells: chunks of 64 KiB up to a disk of 16 GiB, of 4 MiB for one of 1 TiB. */
const CHUNKS_MAX = 256 * 1024;
/** The header holds two doubles: the bytes of a chunk, and the end of what the map covers. */
const HEADER_BYTES = 64;
/** Chunks and extents in one answer; a client asks again for the rest. */
const LOOKED_AT_MAX = 64 * 1024;
const EXTENTS_MAX = 8192;

/** A map of which nothing is known yet. `chunkBytesMin` is a power of two. */
export function createZeroMap(
  sizeBytes: number,
  chunkBytesMin: number = CHUNK_BYTES_MIN,
): SharedArrayBuffer {
  let chunkBytes = chunkBytesMin;
  while (Math.ceil(sizeBytes / chunkBytes) > CHUNKS_MAX) chunkBytes *= 2;
  const shared = new SharedArrayBuffer(HEADER_BYTES + Math.ceil(sizeBytes / chunkBytes) * 4);
  const header = new Float64Array(shared, 0, 2);
  header[0] = chunkBytes;
  header[1] = sizeBytes;
  return shared;
}

export class ZeroMap implements LaneContext {
  readonly name = 'base:allocation';
  readonly chunkBytes: number;
  readonly #endBytes: number;
  readonly #cells: Int32Array;

  constructor(shared: SharedArrayBuffer) {
    const [chunkBytes = 0, endBytes = 0] = new Float64Array(shared, 0, 2);
    this.chunkBytes = chunkBytes;
    this.#endBytes = endBytes;
    this.#cells = new Int32Array(shared, HEADER_BYTES);
  }

  isOfferedFor(): boolean {
    return true;
  }

  extents(_backend: unknown, offset: number, lengthBytes: number): readonly Extent[] {
    const extents: Extent[] = [];
    const end = offset + lengthBytes;
    const lastChunk = Math.min(this.#chunkOf(offset) + LOOKED_AT_MAX, this.#cells.length);
    let from = offset;
    let flags = this.#flagsOf(this.#chunkOf(offset));
    for (let chunk = this.#chunkOf(offset) + 1; chunk < lastChunk; chunk++) {
      const border = chunk * this.chunkBytes;
      if (border >= end) break;
      const next = this.#flagsOf(chunk);
      if (next === flags) continue;
      extents.push({ lengthBytes: border - from, flags });
      if (extents.length === EXTENTS_MAX) return extents;
      from = border;
      flags = next;
    }
    const isToTheEnd = lastChunk === this.#cells.length;
    const knownEnd = isToTheEnd ? this.#endBytes : lastChunk * this.chunkBytes;
    const until = flags === 0 && isToTheEnd ? end : Math.min(end, knownEnd);
    extents.push({ lengthBytes: until - from, flags });
    if (isToTheEnd && until < end) extents.push({ lengthBytes: end - until, flags: 0 });
    return extents;
  }

  dataBegins(offset: number, lengthBytes: number): void {
    this.#changeTouched(offset, lengthBytes, dataBegun);
  }

  dataEnds(offset: number, lengthBytes: number): void {
    this.#changeTouched(offset, lengthBytes, dataEnded);
  }

  zeroesBegin(offset: number, lengthBytes: number): void {
    this.#changeZeroed(offset, lengthBytes, zeroingBegun, dataBegun);
  }

  zeroesEnd(offset: number, lengthBytes: number, isDone: boolean): void {
    this.#changeZeroed(offset, lengthBytes, isDone ? zeroingDone : zeroingFailed, dataEnded);
  }

  contentUnknown(): void {
    for (let chunk = 0; chunk < this.#cells.length; chunk++) this.#change(chunk, forgotten);
  }

  #chunkOf(byte: number): number {
    return Math.floor(byte / this.chunkBytes);
  }

  #flagsOf(chunk: number): number {
    const isKnown = chunk < this.#cells.length && isZero(Atomics.load(this.#cells, chunk));
    return isKnown ? NbdState.ZERO : 0;
  }

  /** Changes the cells of all chunks that a range touches. */
  #changeTouched(offset: number, lengthBytes: number, next: (cell: number) => number): void {
    const last = Math.min(this.#chunkOf(offset + lengthBytes - 1), this.#cells.length - 1);
    for (let chunk = this.#chunkOf(offset); chunk <= last; chunk++) this.#change(chunk, next);
  }

  /** The same, in one way for chunks that the range covers, in another for those at its ends. */
  #changeZeroed(
    offset: number,
    lengthBytes: number,
    covered: (cell: number) => number,
    touched: (cell: number) => number,
  ): void {
    const end = offset + lengthBytes;
    const last = Math.min(this.#chunkOf(end - 1), this.#cells.length - 1);
    for (let chunk = this.#chunkOf(offset); chunk <= last; chunk++) {
      const first = chunk * this.chunkBytes;
      const isCovered = first >= offset && Math.min(first + this.chunkBytes, this.#endBytes) <= end;
      this.#change(chunk, isCovered ? covered : touched);
    }
  }

  #change(chunk: number, next: (cell: number) => number): void {
    let cell = Atomics.load(this.#cells, chunk);
    for (;;) {
      const seen = Atomics.compareExchange(this.#cells, chunk, cell, next(cell));
      if (seen === cell) return;
      cell = seen;
    }
  }
}

/** The kind of context of which every {@link ZeroMap} is one. */
export const allocation: LaneContextKind = {
  name: 'base:allocation',
  share: createZeroMap,
  open: (shared) => new ZeroMap(shared),
};
