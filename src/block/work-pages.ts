/**
 * The device's own granted pages: for the bytes of buffers that are not granted, on their way, and
 * for the segment lists of indirect requests.
 */

import { type GrantedPages, HostError, type XenHost } from '../host/index.ts';
import { PAGE_SIZE, viewMemory } from '../sys/index.ts';

/** What a device grants when it can; a guest may grant 1024 pages in all, unless told otherwise. */
const PAGES_MAX = 272;
/** One direct request, and room for another. */
const PAGES_MIN = 16;

export class WorkPages {
  readonly #granted: GrantedPages;
  readonly #bytes: Uint8Array;
  readonly #free: number[];
  /** For segment lists. */
  readonly view: DataView;

  /** @throws HostError `LIMIT` when not even the least can be had. */
  constructor(host: XenHost, domid: number) {
    this.#granted = grantUpTo(host, domid, PAGES_MAX);
    const { address, pageCount } = this.#granted;
    const memory = viewMemory(address, pageCount * PAGE_SIZE);
    this.#bytes = new Uint8Array(memory);
    this.view = new DataView(memory);
    this.#free = Array.from({ length: pageCount }, (_, page) => pageCount - 1 - page);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  /** Takes a free page; undefined when there is none. */
  take(): number | undefined {
    return this.#free.pop();
  }

  give(page: number): void {
    this.#free.push(page);
  }

  gref(page: number): number {
    return this.#granted.grefs[page] as number;
  }

  /** The first `lengthBytes` of a page. */
  bytes(page: number, lengthBytes: number): Uint8Array {
    return this.#bytes.subarray(page * PAGE_SIZE, page * PAGE_SIZE + lengthBytes);
  }

  /** Gives the pages back: nobody may touch them any more. */
  revoke(): void {
    this.#granted.revoke();
  }
}

/** The largest region that can be had, from `wanted` pages downwards. */
function grantUpTo(host: XenHost, domid: number, wanted: number): GrantedPages {
  for (let pages = wanted; ; pages = Math.max(PAGES_MIN, pages >>> 1)) {
    try {
      return host.grantPages(domid, pages, 'read-write');
    } catch (error) {
      const isLimit = error instanceof HostError && error.code === 'LIMIT';
      if (!isLimit || pages <= PAGES_MIN) throw error;
    }
  }
}
