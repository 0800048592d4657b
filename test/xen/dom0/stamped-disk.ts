// A disk of blocks, each filled with one number, and what may be on it.
import { ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';

/** A block full of one number. */
export function stampedBlock(stamp: number, blockBytes: number): Buffer {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(stamp);
  return Buffer.alloc(blockBytes, word);
}

/** The number that fills block `index`; -1 when it holds anything else, such as a torn write. */
export function stampIn(disk: Buffer, index: number, blockBytes: number): number {
  const content = disk.subarray(index * blockBytes, (index + 1) * blockBytes);
  const stamp = content.readUInt32LE(0);
  return content.equals(stampedBlock(stamp, blockBytes)) ? stamp : -1;
}

/** What each block may hold: the last acknowledged stamp, or one that was in flight at the end. */
export class ExpectedDisk {
  readonly #blockBytes: number;
  readonly #acknowledged: Uint32Array;
  readonly #inFlight = new Map<number, number[]>();

  constructor(blockBytes: number, blockCount: number) {
    this.#blockBytes = blockBytes;
    this.#acknowledged = new Uint32Array(blockCount);
  }

  sent(block: number, stamp: number): void {
    const stamps = this.#inFlight.get(block) ?? [];
    stamps.push(stamp);
    this.#inFlight.set(block, stamps);
  }

  acknowledged(block: number, stamp: number): void {
    this.#acknowledged[block] = stamp;
    this.#inFlight.delete(block);
  }

  acknowledgedStamp(block: number): number {
    return this.#acknowledged[block] ?? 0;
  }

  /** A write to this block was sent and not answered. */
  isBusy(block: number): boolean {
    return this.#inFlight.has(block);
  }

  /** SHA-256 of the disk as acknowledged, when nothing is in flight. */
  digest(): string {
    const hash = createHash('sha256');
    for (const stamp of this.#acknowledged) hash.update(stampedBlock(stamp, this.#blockBytes));
    return hash.digest('hex');
  }

  /** Checks the whole disk; from then on each block is expected to hold what it holds. */
  settle(disk: Buffer, context: string): void {
    for (let block = 0; block < this.#acknowledged.length; block++) {
      const stamp = stampIn(disk, block, this.#blockBytes);
      const possible = [this.acknowledgedStamp(block), ...(this.#inFlight.get(block) ?? [])];
      ok(
        possible.includes(stamp),
        `block ${block} holds ${stamp} and not one of ${possible.join()} (${context})`,
      );
      this.#acknowledged[block] = stamp;
    }
    this.#inFlight.clear();
  }
}
