/**
 * Memory for reads that are larger than the page pool can hold at once. A plain NBD reply has one
 * header in front of all its data, so the data must be complete, and known to be good, before the
 * first byte leaves. Mapped for one read and unmapped after it, within a limit.
 */

import { libc, unmapMemory } from '../sys/index.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

export class SpillMemory {
  readonly #limitBytes: number;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** The address of `lengthBytes`, or 0 when the limit does not allow them now. */
  allocate(lengthBytes: number): number {
    // One read may always go on, whatever its size: otherwise it would wait for ever.
    if (this.#usedBytes > 0 && this.#usedBytes + lengthBytes > this.#limitBytes) return 0;
    const address = libc.mmap(0, lengthBytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (typeof address === 'bigint') return 0;
    this.#usedBytes += lengthBytes;
    return address;
  }

  free(address: number, lengthBytes: number): void {
    this.#usedBytes -= lengthBytes;
    unmapMemory(address, lengthBytes);
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }
}
