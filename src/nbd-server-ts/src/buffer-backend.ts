// A disk in a Uint8Array: the smallest complete backend.

import type { BlockBackend } from './backend.ts';

/** Serves memory. What clients write appears in it at once. */
export class BufferBackend implements BlockBackend {
  readonly sizeBytes: number;
  readonly isZeroFast = true;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.sizeBytes = bytes.length;
  }

  read(target: Uint8Array, offset: number): void {
    target.set(this.#bytes.subarray(offset, offset + target.length));
  }

  write(source: Uint8Array, offset: number): void {
    this.#bytes.set(source, offset);
  }

  /** There is nothing between a write and the memory, so a flush has nothing to do. */
  flush(): void {}

  writeZeroes(offset: number, lengthBytes: number): void {
    this.#bytes.fill(0, offset, offset + lengthBytes);
  }

  /** A hint; memory has nothing to give back. */
  trim(): void {}
}
