/**
 * The back end's side of grants: maps and unmaps pages of another domain by reference, for any
 * thread. Together with grants.ts, which hands pages out, it stands for the grant tables of Xen.
 *
 * One word per grant reference, in memory of the process:
 *
 *   bit  0       PERMIT: may be mapped
 *   bit  1       READ_ONLY: not for writing
 *   bits 2..15   how many times it is mapped
 *   bits 16..31  the domain that may map it
 *
 * The back end has its own mapping of all grantable memory, so that it still sees a page that the
 * front end has unmapped, as a real back end does.
 */

import { PAGE_SIZE, viewMemory } from '../sys/index.ts';

export const GRANT_PERMIT = 1;
export const GRANT_READ_ONLY = 2;
export const GRANT_MAP_UNIT = 4;
export const GRANT_MAP_COUNT = 0xfffc;
export const GRANT_DOMID_SHIFT = 16;

/** References start here: a guest's kernel has taken the first ones. */
export const FIRST_GREF = 8;

/** Where grants are found, as numbers that may cross threads. */
export interface GrantMapPlacement {
  /** Address of the words, one for each page. */
  readonly tableAddress: number;
  /** Address of the back end's mapping of the pages. */
  readonly pagesAddress: number;
  readonly pageCount: number;
}

/** Returned in place of an offset for a reference that may not be mapped. */
export const BAD_GRANT = -1;

/** Maps grants for one domain. Allocates nothing after construction. */
export class GrantMap {
  /** Address of the byte at offset 0 of {@link view}. */
  readonly pagesAddress: number;
  /** All grantable pages, as the back end sees them. */
  readonly view: DataView;
  /** References are below this. */
  readonly grefLimit: number;
  private readonly pageCount: number;
  private readonly table: Int32Array;
  private readonly domid: number;

  constructor(placement: GrantMapPlacement, domid: number) {
    const { tableAddress, pagesAddress, pageCount } = placement;
    this.pagesAddress = pagesAddress;
    this.pageCount = pageCount;
    this.grefLimit = FIRST_GREF + pageCount;
    this.view = new DataView(viewMemory(pagesAddress, pageCount * PAGE_SIZE));
    this.table = new Int32Array(viewMemory(tableAddress, pageCount * 4));
    this.domid = domid;
  }

  /**
   * Maps a page. Returns its offset in {@link view}, or {@link BAD_GRANT} when the reference does
   * not exist, is not for this domain, or is read-only and `forWriting` was asked.
   */
  map(gref: number, forWriting: boolean): number {
    const index = gref - FIRST_GREF;
    if (index < 0 || index >= this.pageCount) return BAD_GRANT;
    for (;;) {
      const word = Atomics.load(this.table, index);
      if ((word & GRANT_PERMIT) === 0 || word >>> GRANT_DOMID_SHIFT !== this.domid) {
        return BAD_GRANT;
      }
      if (forWriting && (word & GRANT_READ_ONLY) !== 0) return BAD_GRANT;
      if ((word & GRANT_MAP_COUNT) === GRANT_MAP_COUNT) return BAD_GRANT;
      // Counted in the word that permits it, in one step: were the count elsewhere, the owner could
      // find nothing mapped and take the page back between our look and our count.
      if (Atomics.compareExchange(this.table, index, word, word + GRANT_MAP_UNIT) === word) {
        return index * PAGE_SIZE;
      }
    }
  }

  /** Undoes one {@link map}. The page must not be touched afterwards. */
  unmap(gref: number): void {
    Atomics.sub(this.table, gref - FIRST_GREF, GRANT_MAP_UNIT);
  }
}
