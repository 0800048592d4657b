// A disk of any size in memory that takes room only where something else than zeroes was written.
// It knows what is allocated, so it shows all of TRIM, WRITE_ZEROES and BLOCK_STATUS.

import type { BlockBackend } from './backend.ts';
import { NbdState } from './constants.ts';
import type { Extent } from './meta-context.ts';

const CHUNK_BYTES = 65536;
const HOLE_FLAGS = NbdState.HOLE | NbdState.ZERO;
/** How many chunks one answer covers, which bounds its work: a client asks again for the rest. */
const MAX_STATUS_CHUNKS = 65536;

/** A RAM disk that begins as one hole. */
export class SparseMemoryBackend implements BlockBackend {
  readonly sizeBytes: number;
  readonly isZeroFast = true;
  readonly preferredBlockBytes: number = CHUNK_BYTES;
  readonly #chunks = new Map<number, Uint8Array>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  /** Bytes of memory in use for data. */
  get allocatedBytes(): number {
    return this.#chunks.size * CHUNK_BYTES;
  }

  read(target: Uint8Array, offset: number): void {
    for (let done = 0; done < target.length; ) {
      const { index, from, lengthBytes } = pieceAt(offset + done, target.length - done);
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) target.fill(0, done, done + lengthBytes);
      else target.set(chunk.subarray(from, from + lengthBytes), done);
      done += lengthBytes;
    }
  }

  write(source: Uint8Array, offset: number): void {
    for (let done = 0; done < source.length; ) {
      const { index, from, lengthBytes } = pieceAt(offset + done, source.length - done);
      this.#chunkFor(index).set(source.subarray(done, done + lengthBytes), from);
      done += lengthBytes;
    }
  }

  /** Memory is all the storage there is. */
  flush(): void {}

  trim(offset: number, lengthBytes: number): void {
    this.#clear(offset, lengthBytes, true);
  }

  writeZeroes(
    offset: number,
    lengthBytes: number,
    options: { readonly mayPunchHole: boolean },
  ): void {
    this.#clear(offset, lengthBytes, options.mayPunchHole);
  }

  allocation(offset: number, lengthBytes: number): Extent[] {
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.min(
      Math.ceil((offset + lengthBytes) / CHUNK_BYTES),
      first + MAX_STATUS_CHUNKS,
    );
    const extents: Extent[] = [];
    let at = offset;
    const report = (until: number, flags: number): void => {
      if (until > at) extents.push({ lengthBytes: until - at, flags });
      at = Math.max(at, until);
    };
    for (const index of this.#allocatedBetween(first, end)) {
      report(index * CHUNK_BYTES, HOLE_FLAGS);
      report(Math.min((index + 1) * CHUNK_BYTES, offset + lengthBytes), 0);
    }
    report(Math.min(end * CHUNK_BYTES, offset + lengthBytes), HOLE_FLAGS);
    return extents;
  }

  /** The chunks in use from `first` to before `end`, in order. */
  #allocatedBetween(first: number, end: number): number[] {
    const indexes: number[] = [];
    if (this.#chunks.size < end - first) {
      for (const index of this.#chunks.keys()) {
        if (index >= first && index < end) indexes.push(index);
      }
      return indexes.sort((one, other) => one - other);
    }
    for (let index = first; index < end; index += 1) {
      if (this.#chunks.has(index)) indexes.push(index);
    }
    return indexes;
  }

  #chunkFor(index: number): Uint8Array {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_BYTES);
      this.#chunks.set(index, chunk);
    }
    return chunk;
  }

  /** Zeroes a range, by dropping whole chunks or by filling them. */
  #clear(offset: number, lengthBytes: number, mayPunchHole: boolean): void {
    for (let done = 0; done < lengthBytes; ) {
      const { index, from, lengthBytes: count } = pieceAt(offset + done, lengthBytes - done);
      if (!mayPunchHole) this.#chunkFor(index).fill(0, from, from + count);
      else if (count === CHUNK_BYTES) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, from, from + count);
      done += count;
    }
  }
}

/** The part of a range that lies in the chunk where the range begins. */
function pieceAt(
  offset: number,
  leftBytes: number,
): { index: number; from: number; lengthBytes: number } {
  const from = offset % CHUNK_BYTES;
  const lengthBytes = Math.min(leftBytes, CHUNK_BYTES - from);
  return { index: Math.floor(offset / CHUNK_BYTES), from, lengthBytes };
}
