/**
 * The guest's grants: pages of one memfd, handed out zeroed and granted to one domain, with the
 * budget of /dev/xen/gntalloc. Lives in the main thread; grant-map.ts is the other side.
 *
 * A page that is revoked while the back end has it mapped is deferred, as in Linux: it counts
 * against the budget and is not given out again before it is unmapped. Stricter than real Xen, a
 * deferred page cannot be mapped once more, so that letting go too early shows.
 */

import { type GrantAccess, type GrantBudget, type GrantedPages, HostError } from '../host/index.ts';
import {
  allocateMemory,
  closeFd,
  errno,
  libc,
  makePrivate,
  mapShared,
  PAGE_SIZE,
  SysError,
  unmapMemory,
} from '../sys/index.ts';
import {
  FIRST_GREF,
  GRANT_DOMID_SHIFT,
  GRANT_MAP_COUNT,
  GRANT_PERMIT,
  GRANT_READ_ONLY,
  GrantMap,
  type GrantMapPlacement,
} from './grant-map.ts';

/** The default of /sys/module/xen_gntalloc/parameters/limit. */
export const DEFAULT_GRANT_LIMIT_PAGES = 1024;
/** 4 GiB of pages cannot be seen through one view. */
const MAX_GRANT_LIMIT_PAGES = 2 ** 19;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_FIXED = 0x10;
const MFD_CLOEXEC = 1;

/** What is still held, for tests and for the report at the end. */
export interface GrantUse {
  /** Pages that the guest holds. */
  readonly grantedPages: number;
  /** Pages that were revoked and are still mapped by a back end. */
  readonly deferredPages: number;
  /** Mappings by back ends, of any pages. */
  readonly mappings: number;
}

/** A contiguous mapping of another domain's pages, such as a ring. */
export interface GrantMapping {
  readonly address: number;
  readonly pageCount: number;
  unmap(): void;
}

export class GrantTable {
  readonly limitPages: number;
  readonly placement: GrantMapPlacement;
  readonly #fd: number;
  readonly #table: Int32Array;
  readonly #pages: Uint8Array;
  /** Indices of free pages; the last one is taken first. */
  readonly #free: number[] = [];
  #deferred: number[] = [];
  #grantedPages = 0;
  /** By domain: a view of all pages is not made for each ring. */
  readonly #maps = new Map<number, GrantMap>();

  constructor(limitPages: number = DEFAULT_GRANT_LIMIT_PAGES) {
    if (!Number.isInteger(limitPages) || limitPages < 1 || limitPages > MAX_GRANT_LIMIT_PAGES) {
      throw new HostError(
        'LIMIT',
        `A grant limit of ${limitPages} pages cannot be simulated; ` +
          `give 1 to ${MAX_GRANT_LIMIT_PAGES}.`,
      );
    }
    this.limitPages = limitPages;
    this.#fd = libc.memfdCreate('xen-grants', MFD_CLOEXEC);
    if (this.#fd < 0) throw new SysError('memfd_create', errno());
    const lengthBytes = limitPages * PAGE_SIZE;
    if (libc.ftruncate(this.#fd, lengthBytes) !== 0) throw new SysError('ftruncate', errno());
    const pages = mapShared(this.#fd, 0, lengthBytes);
    const table = allocateMemory(limitPages * 4);
    this.#pages = new Uint8Array(pages.buffer);
    this.#table = new Int32Array(table.buffer);
    this.placement = {
      tableAddress: table.address,
      pagesAddress: pages.address,
      pageCount: limitPages,
    };
    for (let index = limitPages - 1; index >= 0; index--) this.#free.push(index);
  }

  budget(): GrantBudget {
    return {
      limitPages: this.limitPages,
      source: 'the option grantLimitPages of the simulated Xen host',
    };
  }

  /** Grants fresh zeroed pages, contiguous in the address space of the guest. */
  grant(domid: number, pageCount: number, access: GrantAccess): GrantedPages {
    if (!Number.isInteger(pageCount) || pageCount < 1) {
      throw new RangeError(`${pageCount} pages cannot be granted.`);
    }
    this.#collectDeferred();
    if (pageCount > this.#free.length) throw this.#limitError(pageCount);
    const indices = this.#free.splice(this.#free.length - pageCount).reverse();
    const address = this.#mapForGuest(indices);
    const flags = GRANT_PERMIT | (access === 'read-only' ? GRANT_READ_ONLY : 0);
    for (const index of indices) {
      this.#pages.fill(0, index * PAGE_SIZE, (index + 1) * PAGE_SIZE);
      // The store publishes the zeroes: who may map the page sees it empty.
      Atomics.store(this.#table, index, (domid << GRANT_DOMID_SHIFT) | flags);
    }
    this.#grantedPages += pageCount;
    let isRevoked = false;
    const end = (unmap: (address: number, lengthBytes: number) => void): void => {
      if (isRevoked) throw new HostError('FAILED', 'These pages were revoked before.');
      isRevoked = true;
      unmap(address, pageCount * PAGE_SIZE);
      this.#giveBack(indices);
    };
    return {
      address,
      pageCount,
      grefs: Uint32Array.from(indices, (index) => index + FIRST_GREF),
      revoke: () => end(unmapMemory),
      retire: () => end(makePrivate),
    };
  }

  /**
   * Maps pages side by side for `domid`, writable. Undefined when one of them may not be mapped;
   * then none is.
   */
  mapContiguous(domid: number, grefs: readonly number[]): GrantMapping | undefined {
    const map = this.#mapFor(domid);
    const mapped: number[] = [];
    for (const gref of grefs) {
      if (map.map(gref, true) < 0) {
        for (const one of mapped) map.unmap(one);
        return undefined;
      }
      mapped.push(gref);
    }
    const address = this.#mapForGuest(mapped.map((gref) => gref - FIRST_GREF));
    const unmap = (): void => {
      unmapMemory(address, mapped.length * PAGE_SIZE);
      for (const gref of mapped) map.unmap(gref);
    };
    return { address, pageCount: mapped.length, unmap };
  }

  #mapFor(domid: number): GrantMap {
    let map = this.#maps.get(domid);
    if (map === undefined) {
      map = new GrantMap(this.placement, domid);
      this.#maps.set(domid, map);
    }
    return map;
  }

  /** The guest was restored: none of its grants holds any more. It may still revoke them. */
  forgetAll(): void {
    for (let index = 0; index < this.limitPages; index++) {
      Atomics.and(this.#table, index, ~GRANT_PERMIT);
    }
  }

  use(): GrantUse {
    this.#collectDeferred();
    let mappings = 0;
    for (let index = 0; index < this.limitPages; index++) {
      mappings += mapCountOf(Atomics.load(this.#table, index));
    }
    return {
      grantedPages: this.#grantedPages,
      deferredPages: this.#deferred.length,
      mappings,
    };
  }

  /**
   * Closes the memory. Pages that the guest still holds stay mapped at their addresses, since
   * somebody may be using them; all back ends must have stopped.
   */
  close(): void {
    closeFd(this.#fd);
    unmapMemory(this.placement.pagesAddress, this.limitPages * PAGE_SIZE);
    unmapMemory(this.placement.tableAddress, this.limitPages * 4);
  }

  /** Reserves a range of addresses and lays the pages into it, runs of neighbours in one call. */
  #mapForGuest(indices: readonly number[]): number {
    const lengthBytes = indices.length * PAGE_SIZE;
    const { address } = allocateMemory(lengthBytes);
    for (let start = 0; start < indices.length; ) {
      const first = indices[start] ?? 0;
      let end = start + 1;
      while (indices[end] === first + (end - start)) end += 1;
      const result = libc.mmap(
        address + start * PAGE_SIZE,
        (end - start) * PAGE_SIZE,
        PROT_READ_WRITE,
        MAP_SHARED | MAP_FIXED,
        this.#fd,
        first * PAGE_SIZE,
      );
      if (typeof result === 'bigint') throw new SysError('mmap', errno());
      start = end;
    }
    return address;
  }

  #giveBack(indices: readonly number[]): void {
    // Backwards, so that the next grant finds neighbours in ascending order.
    for (const index of indices.toReversed()) {
      // Ends the permission and finds out about mappings in one step: a back end that maps at the
      // same moment either comes before, and is counted, or after, and is refused.
      const before = Atomics.and(this.#table, index, ~GRANT_PERMIT);
      if (mapCountOf(before) === 0) this.#free.push(index);
      else this.#deferred.push(index);
    }
    this.#grantedPages -= indices.length;
  }

  #collectDeferred(): void {
    this.#deferred = this.#deferred.filter((index) => {
      const isMapped = mapCountOf(Atomics.load(this.#table, index)) > 0;
      if (!isMapped) this.#free.push(index);
      return isMapped;
    });
  }

  #limitError(pageCount: number): HostError {
    const deferred = this.#deferred.length;
    return new HostError(
      'LIMIT',
      `${pageCount} pages cannot be granted: ${this.#free.length} of ${this.limitPages} are free` +
        `${deferred > 0 ? ` and ${deferred} are still mapped by the back end` : ''}; ` +
        'use fewer queues or smaller rings, or raise the grantLimitPages of the simulated Xen host.',
    );
  }
}

function mapCountOf(word: number): number {
  return (word & GRANT_MAP_COUNT) >>> 2;
}
