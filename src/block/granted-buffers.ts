/**
 * Buffers whose memory is granted to the back end, so that it reads and writes them directly.
 *
 * Somebody may hold such a buffer for ever, also after the device is gone. So its memory is never
 * unmapped: when the grant ends, private memory with the same bytes takes its place, and the buffer
 * is one like any other from then on.
 */

import type { GrantedPages, XenHost } from '../host/index.ts';
import { emptyMemory, PAGE_SIZE, viewMemory } from '../sys/index.ts';

/** The memory of one allocation. Does not refer to its buffer, which may be collected. */
interface Region {
  /** Undefined once it is granted no more. */
  granted: GrantedPages | undefined;
  readonly address: number;
  readonly pageCount: number;
  /** For each page whether it is part of a ring request: no page is in two at once. */
  readonly isInUse: Uint8Array;
}

/** One page that a ring request uses. */
export interface PageHold {
  readonly gref: number;
  /** Lets go of the page; the back end has finished with it. */
  release(): void;
}

export class GrantedBuffers {
  readonly #regionOf = new WeakMap<ArrayBufferLike, Region>();
  readonly #granted = new Set<Region>();
  readonly #collected: FinalizationRegistry<Region>;

  constructor() {
    this.#collected = new FinalizationRegistry((region) => {
      this.#retire(region);
      emptyMemory(region.address, region.pageCount * PAGE_SIZE);
    });
  }

  /** @throws HostError `LIMIT` when the guest has no more pages to grant. */
  allocate(host: XenHost, domid: number, pageCount: number): Buffer {
    const granted = host.grantPages(domid, pageCount, 'read-write');
    const memory = viewMemory(granted.address, pageCount * PAGE_SIZE);
    // Not marked as untransferable: Node 24 aborts at its end over such a view of foreign memory.
    const isInUse = new Uint8Array(pageCount);
    const region = { granted, address: granted.address, pageCount, isInUse };
    this.#regionOf.set(memory, region);
    this.#granted.add(region);
    this.#collected.register(memory, region);
    return Buffer.from(memory);
  }

  /**
   * Ends the grant of a buffer that {@link allocate} made.
   *
   * @throws RangeError when it is no such buffer, or an operation uses it.
   */
  release(buffer: Uint8Array): void {
    const region = this.#regionOf.get(buffer.buffer);
    if (region === undefined) {
      throw new RangeError('this buffer does not come from allocatePages of this device');
    }
    if (region.isInUse.includes(1)) {
      throw new RangeError('this buffer is part of an operation that has not ended');
    }
    this.#retire(region);
  }

  /**
   * How many bytes the back end can reach directly from `offset` of `bytes` on: up to the end of
   * one page, and 0 when the bytes have to be copied.
   */
  directBytes(bytes: Uint8Array, offset: number, sectorBytes: number): number {
    const region = this.#regionOf.get(bytes.buffer);
    if (region?.granted === undefined) return 0;
    const at = bytes.byteOffset + offset;
    // Sectors of a request are aligned to those of the disk in memory as well.
    if (at % sectorBytes !== 0) return 0;
    if (region.isInUse[Math.floor(at / PAGE_SIZE)] !== 0) return 0;
    return PAGE_SIZE - (at % PAGE_SIZE);
  }

  /** Takes the page of which {@link directBytes} has told. */
  hold(bytes: Uint8Array, offset: number): PageHold {
    const region = this.#regionOf.get(bytes.buffer);
    const page = Math.floor((bytes.byteOffset + offset) / PAGE_SIZE);
    const gref = region?.granted?.grefs[page];
    if (region === undefined || gref === undefined) throw new Error('this page is not granted');
    region.isInUse[page] = 1;
    return {
      gref,
      release: () => {
        region.isInUse[page] = 0;
      },
    };
  }

  /** Ends all grants: the back end has finished, or they are void. */
  retireAll(): void {
    for (const region of this.#granted) this.#retire(region);
  }

  #retire(region: Region): void {
    this.#granted.delete(region);
    region.granted?.retire();
    region.granted = undefined;
  }
}
