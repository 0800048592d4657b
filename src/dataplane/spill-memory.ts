/**
 * Memory for reads that are larger than the page pool can hold at once, or whose client does not
 * take them while others need the pages. A plain NBD reply has one header in front of all its data,
 * so the data must be complete, and known to be good, before the first byte leaves.
 *
 * Blocks are kept for reuse, up to a limit: the first touch of fresh memory costs a page fault for
 * each 4 KiB, which is more than the copy itself.
 */

import { libc, unmapMemory } from '../sys/index.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const BLOCK_BYTES_MIN = 64 * 1024;
/** What may stay mapped while nobody uses it. */
const KEPT_BYTES_MAX = 16 * 1024 * 1024;

interface Block {
  readonly address: number;
  readonly lengthBytes: number;
}

export class SpillMemory {
  readonly #limitBytes: number;
  readonly #kept: Block[] = [];
  #keptBytes = 0;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** The address of `lengthBytes`, or 0 when the limit does not allow them now. */
  allocate(lengthBytes: number): number {
    const blockBytes = blockBytesOf(lengthBytes);
    // One read may always go on, whatever its size: otherwise it would wait for ever.
    if (this.#usedBytes > 0 && this.#usedBytes + blockBytes > this.#limitBytes) return 0;
    const address = this.#takeKept(blockBytes) ?? map(blockBytes);
    if (address !== 0) this.#usedBytes += blockBytes;
    return address;
  }

  /** Gives back what {@link allocate} gave for the same length. */
  free(address: number, lengthBytes: number): void {
    const blockBytes = blockBytesOf(lengthBytes);
    this.#usedBytes -= blockBytes;
    if (this.#keptBytes + blockBytes > KEPT_BYTES_MAX) {
      unmapMemory(address, blockBytes);
      return;
    }
    this.#kept.push({ address, lengthBytes: blockBytes });
    this.#keptBytes += blockBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  #takeKept(blockBytes: number): number | undefined {
    const index = this.#kept.findLastIndex((block) => block.lengthBytes === blockBytes);
    if (index < 0) return undefined;
    const [block] = this.#kept.splice(index, 1);
    this.#keptBytes -= blockBytes;
    return block?.address;
  }
}

/** Blocks come in powers of two, so that one that is given back fits the next read of its kind. */
function blockBytesOf(lengthBytes: number): number {
  return Math.max(BLOCK_BYTES_MIN, 2 ** Math.ceil(Math.log2(lengthBytes)));
}

function map(lengthBytes: number): number {
  const address = libc.mmap(0, lengthBytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  return typeof address === 'bigint' ? 0 : address;
}
