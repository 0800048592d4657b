/**
 * Buffers that connections receive into. A connection holds one only while it has bytes that were
 * not dealt with yet; idle connections hold none. The one given back last is taken next, so with a
 * light load all connections share one, and its bytes stay in the processor's cache.
 */

import { allocateMemory } from '../sys/index.ts';

export class ReceiveBuffer {
  readonly address: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;

  constructor(lengthBytes: number) {
    const memory = allocateMemory(lengthBytes);
    this.address = memory.address;
    this.view = new DataView(memory.buffer);
    this.bytes = new Uint8Array(memory.buffer);
  }
}

export class ReceiveBuffers {
  readonly lengthBytes: number;
  readonly #free: ReceiveBuffer[] = [];

  constructor(lengthBytes: number) {
    this.lengthBytes = lengthBytes;
  }

  take(): ReceiveBuffer {
    return this.#free.pop() ?? new ReceiveBuffer(this.lengthBytes);
  }

  give(buffer: ReceiveBuffer): void {
    this.#free.push(buffer);
  }
}
