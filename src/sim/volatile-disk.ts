/**
 * A disk with a write cache that a power failure empties: of the writes since the last flush any
 * may be lost, in any combination. Shows whether a front end promises durability that it has not
 * asked the disk for. Slow: it remembers what each write replaced.
 */

import { allocateMemory, type Memory } from '../sys/index.ts';
import type { EngineDisk } from './blkback-engine.ts';
import type { SeededRandom } from './faults.ts';
import { IovecList } from './iovec-list.ts';

interface CachedWrite {
  readonly offsetBytes: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

export class VolatileDisk implements EngineDisk {
  private readonly disk: EngineDisk & { sectors: number };
  private readonly iovecs = new IovecList();
  private memory: Memory = allocateMemory(1 << 20);
  private readonly cached: CachedWrite[] = [];

  constructor(disk: EngineDisk & { sectors: number }) {
    this.disk = disk;
  }

  get sectors(): number {
    return this.disk.sectors;
  }

  set sectors(sectors: number) {
    this.disk.sectors = sectors;
  }

  read(into: IovecList, offsetBytes: number): boolean {
    return this.disk.read(into, offsetBytes);
  }

  write(from: IovecList, offsetBytes: number): boolean {
    const { lengthBytes } = from;
    const before = this.readBytes(offsetBytes, lengthBytes);
    if (!this.disk.write(from, offsetBytes)) return false;
    this.remember(offsetBytes, lengthBytes, before);
    return true;
  }

  flush(): boolean {
    if (!this.disk.flush()) return false;
    this.cached.length = 0;
    return true;
  }

  discard(offsetBytes: number, lengthBytes: number): boolean {
    const before = this.readBytes(offsetBytes, lengthBytes);
    if (!this.disk.discard(offsetBytes, lengthBytes)) return false;
    this.remember(offsetBytes, lengthBytes, before);
    return true;
  }

  /** Writes that are not durable. */
  get cachedCount(): number {
    return this.cached.length;
  }

  /** The power fails: each cached write is kept or lost, as `random` decides. */
  losePower(random: SeededRandom): void {
    const cached = this.cached.splice(0);
    // Back to the state of the last flush, newest first, and then the survivors in their order.
    for (const { offsetBytes, before } of cached.toReversed()) this.writeBytes(offsetBytes, before);
    for (const { offsetBytes, after } of cached) {
      if (random.next() < 0.5) this.writeBytes(offsetBytes, after);
    }
  }

  private remember(offsetBytes: number, lengthBytes: number, before: Uint8Array | undefined): void {
    const after = this.readBytes(offsetBytes, lengthBytes);
    if (before !== undefined && after !== undefined) {
      this.cached.push({ offsetBytes, before, after });
    }
  }

  private readBytes(offsetBytes: number, lengthBytes: number): Uint8Array | undefined {
    this.prepare(lengthBytes);
    if (!this.disk.read(this.iovecs, offsetBytes)) return undefined;
    return new Uint8Array(this.memory.buffer, 0, lengthBytes).slice();
  }

  private writeBytes(offsetBytes: number, bytes: Uint8Array): void {
    this.prepare(bytes.length);
    new Uint8Array(this.memory.buffer).set(bytes);
    this.disk.write(this.iovecs, offsetBytes);
  }

  private prepare(lengthBytes: number): void {
    if (this.memory.lengthBytes < lengthBytes) this.memory = allocateMemory(lengthBytes);
    this.iovecs.clear();
    this.iovecs.add(this.memory.address, lengthBytes);
  }
}
