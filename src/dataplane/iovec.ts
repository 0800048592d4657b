/**
 * An array of struct iovec {void *base; size_t length} for readv(2) and writev(2), filled in as
 * pairs of u32: a koffi struct would cost fifty times as much. Pieces that lie next to each other
 * in memory are joined.
 */

import { allocateMemory, libc } from '../sys/index.ts';

/** The kernel takes no more in one call (IOV_MAX). */
export const IOVEC_COUNT_MAX = 1024;

const IOVEC_BYTES = 16;
const WORDS = IOVEC_BYTES / 4;
const TWO_TO_32 = 0x1_0000_0000;

export class Iovec {
  readonly address: number;
  readonly #words: Uint32Array;
  #count = 0;
  #endAddress = 0;
  #lengthBytes = 0;

  constructor() {
    const memory = allocateMemory(IOVEC_COUNT_MAX * IOVEC_BYTES);
    this.address = memory.address;
    this.#words = new Uint32Array(memory.buffer);
  }

  get count(): number {
    return this.#count;
  }

  /** Of all pieces together. */
  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  get isFull(): boolean {
    return this.#count === IOVEC_COUNT_MAX;
  }

  clear(): void {
    this.#count = 0;
    this.#endAddress = 0;
    this.#lengthBytes = 0;
  }

  /** Copies all pieces, one behind the other, to `targetAddress`. */
  copyTo(targetAddress: number): void {
    const words = this.#words;
    let target = targetAddress;
    for (let at = 0; at < this.#count * WORDS; at += WORDS) {
      const source = (words[at + 1] as number) * TWO_TO_32 + (words[at] as number);
      const length = words[at + 2] as number;
      libc.memcpy(target, source, length);
      target += length;
    }
  }

  /** Adds a piece; its length is below 4 GiB. Must not be called when {@link isFull}. */
  add(address: number, lengthBytes: number): void {
    const words = this.#words;
    this.#lengthBytes += lengthBytes;
    if (address === this.#endAddress) {
      const lengthWord = (this.#count - 1) * WORDS + 2;
      words[lengthWord] = (words[lengthWord] as number) + lengthBytes;
      this.#endAddress = address + lengthBytes;
      return;
    }
    const at = this.#count * WORDS;
    words[at] = address % TWO_TO_32;
    words[at + 1] = address / TWO_TO_32;
    words[at + 2] = lengthBytes;
    words[at + 3] = 0;
    this.#count += 1;
    this.#endAddress = address + lengthBytes;
  }
}
