/**
 * One read or write of a caller, from its call to its result: the buffers as one run of bytes, and
 * the range of the disk that they stand for. Whatever can be wrong with the arguments is found
 * here, before anything is asked of the back end.
 */

import type { BlockError, BlockResult } from './block-error.ts';

/** The disk as far as arguments are checked against it. */
export interface DiskExtent {
  readonly sectorBytes: number;
  readonly sizeBytes: number;
}

/** A buffer and where its bytes lie in the transfer. */
interface Span {
  readonly bytes: Uint8Array;
  readonly start: number;
  /** As it was when the call was made: what backs a buffer can be taken away. */
  readonly lengthBytes: number;
}

/** A piece of a buffer: `lengthBytes` from `offset` of `bytes`. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Copies between a piece of a buffer and memory, of which `done` bytes were dealt with. */
type Copy = (piece: Uint8Array, done: number) => void;

export class Transfer {
  readonly isWrite: boolean;
  /** Where it begins on the disk. */
  readonly firstByte: number;
  readonly lengthBytes: number;
  readonly #spans: readonly Span[];
  readonly #resolve: (result: BlockResult) => void;
  #error: BlockError | undefined;
  /** Ring requests and waiting ranges that it consists of. */
  #pending = 0;

  constructor(
    isWrite: boolean,
    range: { readonly firstByte: number; readonly lengthBytes: number },
    buffers: readonly Uint8Array[],
    resolve: (result: BlockResult) => void,
  ) {
    this.isWrite = isWrite;
    this.firstByte = range.firstByte;
    this.lengthBytes = range.lengthBytes;
    this.#resolve = resolve;
    let start = 0;
    this.#spans = buffers
      .filter(({ byteLength }) => byteLength > 0)
      .map((bytes) => {
        const span = { bytes, start, lengthBytes: bytes.byteLength };
        start += bytes.byteLength;
        return span;
      });
  }

  /** Whether a part of it has failed already, so that the rest need not be tried. */
  get hasFailed(): boolean {
    return this.#error !== undefined;
  }

  /** The first failure decides. */
  fail(error: BlockError): void {
    this.#error ??= error;
  }

  /** Something more is to be waited for. */
  begin(): void {
    this.#pending += 1;
  }

  /** Something is over; resolves the caller's promise when it was the last. */
  end(): void {
    this.#pending -= 1;
    if (this.#pending > 0) return;
    const error = this.#error;
    this.#resolve(error === undefined ? { ok: true } : { ok: false, error });
  }

  /** The longest piece of one buffer from byte `at` of the transfer on. */
  pieceAt(at: number): Piece {
    const span = this.#spans[this.#indexAt(at)] as Span;
    const offset = at - span.start;
    return { bytes: span.bytes, offset, lengthBytes: span.lengthBytes - offset };
  }

  /** Whether each buffer, and the range, is still made of whole sectors of another size. */
  fits(sectorBytes: number): boolean {
    const isWhole = (bytes: number): boolean => bytes % sectorBytes === 0;
    return isWhole(this.firstByte) && this.#spans.every(({ lengthBytes }) => isWhole(lengthBytes));
  }

  /** Copies `target.length` bytes from the buffers, from byte `at` on; false when they are gone. */
  copyOut(at: number, target: Uint8Array): boolean {
    return this.#eachPiece(at, target.length, (piece, done) => {
      target.set(piece, done);
    });
  }

  /** Copies `source` into the buffers, from byte `at` on; false when they are gone. */
  copyIn(at: number, source: Uint8Array): boolean {
    return this.#eachPiece(at, source.length, (piece, done) => {
      piece.set(source.subarray(done, done + piece.length));
    });
  }

  #eachPiece(at: number, lengthBytes: number, copy: Copy): boolean {
    let index = this.#indexAt(at);
    for (let done = 0; done < lengthBytes; index++) {
      const { bytes, start, lengthBytes: spanBytes } = this.#spans[index] as Span;
      // A buffer can be transferred to another thread, or shrink, while we work for its owner.
      if (bytes.byteLength !== spanBytes) return false;
      const offset = at + done - start;
      const length = Math.min(spanBytes - offset, lengthBytes - done);
      copy(bytes.subarray(offset, offset + length), done);
      done += length;
    }
    return true;
  }

  /** Index of the span that holds byte `at`: a list of buffers can be of any length. */
  #indexAt(at: number): number {
    let low = 0;
    let high = this.#spans.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#spans[middle] as Span).start <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/**
 * The range of the disk that `buffers` stand for, from `sectorStart` on.
 *
 * @throws TypeError for arguments of another type; RangeError for a buffer that is no whole number
 *   of sectors, and for a range that is not on the disk.
 */
export function checkRange(
  disk: DiskExtent,
  sectorStart: number | bigint,
  buffers: readonly Uint8Array[],
): { readonly firstByte: number; readonly lengthBytes: number } {
  const { sectorBytes, sizeBytes } = disk;
  if (!Array.isArray(buffers)) throw new TypeError('buffers must be an array of Uint8Array');
  let lengthBytes = 0;
  for (const [index, buffer] of buffers.entries()) {
    if (!(buffer instanceof Uint8Array)) {
      throw new TypeError(`buffers[${index}] is no Uint8Array (a Buffer is one)`);
    }
    if (buffer.byteLength % sectorBytes !== 0) {
      throw new RangeError(
        `buffers[${index}] has ${buffer.byteLength} bytes, which is no whole number of sectors ` +
          `of ${sectorBytes} bytes`,
      );
    }
    lengthBytes += buffer.byteLength;
  }
  const first = checkSector(sectorStart);
  const sizeSectors = BigInt(sizeBytes / sectorBytes);
  const sectors = BigInt(lengthBytes / sectorBytes);
  if (first + sectors > sizeSectors) {
    throw new RangeError(
      `sectors ${first} to ${first + sectors} are not on this disk, which has ${sizeSectors}`,
    );
  }
  return { firstByte: Number(first) * sectorBytes, lengthBytes };
}

function checkSector(sectorStart: number | bigint): bigint {
  if (typeof sectorStart !== 'number' && typeof sectorStart !== 'bigint') {
    throw new TypeError(`sectorStart must be a bigint or a number, not ${typeof sectorStart}`);
  }
  const isExact = typeof sectorStart === 'bigint' || Number.isSafeInteger(sectorStart);
  if (!isExact || sectorStart < 0) {
    throw new RangeError(`sectorStart must be a whole number from 0 on, not ${sectorStart}`);
  }
  return BigInt(sectorStart);
}
