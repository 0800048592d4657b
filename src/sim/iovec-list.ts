/**
 * A list of struct iovec (16 bytes: address, length) in memory that system calls can be pointed at,
 * filled as u32 pairs. Neighbours that touch become one. Filling allocates nothing.
 */

import { allocateMemory, type Memory } from '../sys/index.ts';

const TWO_POW_32 = 2 ** 32;
/** IOV_MAX of Linux: what one preadv or pwritev takes. */
export const IOVEC_MAX = 1024;

export class IovecList {
  /** Address of the first entry. */
  readonly address: number;
  count = 0;
  lengthBytes = 0;
  private readonly words: Uint32Array;
  /** Where the next piece must begin to be joined with the last entry. */
  private endAddress = 0;

  constructor() {
    const memory: Memory = allocateMemory(IOVEC_MAX * 16);
    this.address = memory.address;
    this.words = new Uint32Array(memory.buffer);
  }

  clear(): void {
    this.count = 0;
    this.lengthBytes = 0;
    this.endAddress = 0;
  }

  /** Whether {@link add} might need an entry that is not there. */
  get isFull(): boolean {
    return this.count === IOVEC_MAX;
  }

  add(address: number, lengthBytes: number): void {
    const { words } = this;
    if (address === this.endAddress) {
      const at = (this.count - 1) * 4 + 2;
      words[at] = (words[at] as number) + lengthBytes;
    } else {
      const at = this.count * 4;
      words[at] = address >>> 0;
      words[at + 1] = (address / TWO_POW_32) >>> 0;
      words[at + 2] = lengthBytes;
      // A list holds less than 4 GiB: the high half of a length stays zero.
      words[at + 3] = 0;
      this.count += 1;
    }
    this.endAddress = address + lengthBytes;
    this.lengthBytes += lengthBytes;
  }

  /** Address of entry `index`, for disks that are not system calls. */
  addressAt(index: number): number {
    return (this.words[index * 4 + 1] as number) * TWO_POW_32 + (this.words[index * 4] as number);
  }

  lengthAt(index: number): number {
    return this.words[index * 4 + 2] as number;
  }
}
