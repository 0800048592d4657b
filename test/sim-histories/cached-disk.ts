/**
 * A disk with a volatile write cache, as strict as a disk may be: a flush makes durable what was
 * answered before the flush was taken from the ring, and nothing that it need not; a crash keeps or
 * loses each other sector as the seed decides.
 *
 * Positions are bytes; the cache works on the ring's sectors of 512 bytes.
 */

import type { EngineDisk } from '../../src/sim/blkback-engine.ts';
import type { IovecList } from '../../src/sim/iovec-list.ts';
import type { SeededRandom } from '../support/random.ts';

const SECTOR = 512;
/** What a discarded sector reads as: not zeroes, so that nobody can rely on them. */
export const DISCARDED_BYTE = 0xdd;

/** Written since it was last durable, and not answered yet. */
const UNANSWERED = 2 ** 53;

/** Largest disk. Its memory is used by one history after another. */
export const DISK_BYTES_MAX: number = 1 << 19;
const currentMemory = Buffer.alloc(DISK_BYTES_MAX);
const durableMemory = Buffer.alloc(DISK_BYTES_MAX);
const dirtyMemory = new Float64Array(DISK_BYTES_MAX / SECTOR);

export class CachedDisk implements EngineDisk {
  sectors: number;
  /** What a read gives. */
  readonly current: Buffer;
  /** What is left after a crash, at the least. */
  readonly #durable: Buffer;
  /** For each sector: 0 when clean, else the number of the first answer to a write of it. */
  readonly #dirty: Float64Array;
  readonly #pagesAddress: number;
  readonly #pages: Buffer;
  readonly #isWriteThrough: boolean;
  #answers = 0;

  /**
   * @param pages where the front end's pages are, as an address and as bytes.
   * @param isWriteThrough whether there is no cache at all.
   */
  constructor(
    sizeBytes: number,
    maxBytes: number,
    pages: { readonly address: number; readonly bytes: Buffer },
    isWriteThrough: boolean,
  ) {
    this.sectors = sizeBytes / SECTOR;
    this.#isWriteThrough = isWriteThrough;
    this.current = currentMemory.subarray(0, maxBytes).fill(0);
    this.#durable = durableMemory.subarray(0, maxBytes).fill(0);
    this.#dirty = dirtyMemory.subarray(0, maxBytes / SECTOR).fill(0);
    this.#pagesAddress = pages.address;
    this.#pages = pages.bytes;
  }

  read(into: IovecList, offsetBytes: number): boolean {
    let at = offsetBytes;
    for (let index = 0; index < into.count; index++) {
      const length = into.lengthAt(index);
      this.current.copy(this.#pages, into.addressAt(index) - this.#pagesAddress, at, at + length);
      at += length;
    }
    return true;
  }

  write(from: IovecList, offsetBytes: number): boolean {
    let at = offsetBytes;
    for (let index = 0; index < from.count; index++) {
      const start = from.addressAt(index) - this.#pagesAddress;
      const length = from.lengthAt(index);
      this.#pages.copy(this.current, at, start, start + length);
      at += length;
    }
    this.#soil(offsetBytes, at);
    return true;
  }

  discard(offsetBytes: number, lengthBytes: number): boolean {
    this.current.fill(DISCARDED_BYTE, offsetBytes, offsetBytes + lengthBytes);
    this.#soil(offsetBytes, offsetBytes + lengthBytes);
    return true;
  }

  /** Of the engine, which does not know what was answered when: see {@link flushUpTo}. */
  flush(): boolean {
    return true;
  }

  /** How many writes were answered so far: a flush that is taken now has to cover these. */
  get answers(): number {
    return this.#answers;
  }

  /** A write of this range was answered. */
  answered(offsetBytes: number, lengthBytes: number): void {
    this.#answers += 1;
    const end = (offsetBytes + lengthBytes) / SECTOR;
    for (let sector = offsetBytes / SECTOR; sector < end; sector++) {
      if (this.#dirty[sector] === UNANSWERED) this.#dirty[sector] = this.#answers;
    }
  }

  /** Makes durable what the first `answers` answers were about. */
  flushUpTo(answers: number): void {
    for (let sector = 0; sector < this.#dirty.length; sector++) {
      const since = this.#dirty[sector] as number;
      if (since !== 0 && since <= answers) this.#settle(sector);
    }
  }

  /** Loses what is in the cache, or some of it. */
  crash(random: SeededRandom): void {
    const keep = random.pick([0, 0.3, 0.9]);
    for (let sector = 0; sector < this.#dirty.length; sector++) {
      if (this.#dirty[sector] === 0) continue;
      if (random.chance(keep)) {
        this.#settle(sector);
      } else {
        this.#durable.copy(this.current, sector * SECTOR, sector * SECTOR, (sector + 1) * SECTOR);
        this.#dirty[sector] = 0;
      }
    }
  }

  #soil(startBytes: number, endBytes: number): void {
    if (this.#isWriteThrough) return;
    for (let sector = startBytes / SECTOR; sector < endBytes / SECTOR; sector++) {
      if (this.#dirty[sector] === 0) this.#dirty[sector] = UNANSWERED;
    }
  }

  #settle(sector: number): void {
    this.current.copy(this.#durable, sector * SECTOR, sector * SECTOR, (sector + 1) * SECTOR);
    this.#dirty[sector] = 0;
  }
}
