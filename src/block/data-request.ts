/**
 * One ring request of a transfer: which part of it, and the pages that the back end finds or leaves
 * the bytes in. Granted buffers are used where they lie. The bytes of others go through work pages,
 * which small buffers share.
 */

import { BLKIF_MAX_SEGMENTS_PER_REQUEST, RING_SECTOR_BYTES } from '../blkif/index.ts';
import { PAGE_SIZE } from '../sys/index.ts';
import type { GrantedBuffers, PageHold } from './granted-buffers.ts';
import type { Transfer } from './transfer.ts';
import type { WorkPages } from './work-pages.ts';

/** Sectors `firstSector..lastSector` of a granted page, in units of 512 bytes. */
export interface Segment {
  readonly gref: number;
  readonly firstSector: number;
  readonly lastSector: number;
}

/** Bytes of the transfer, from `at` on, that are in a work page. */
interface Copy {
  readonly page: number;
  readonly at: number;
  readonly lengthBytes: number;
}

/** What requests are made of. */
export interface PageSources {
  readonly buffers: GrantedBuffers;
  readonly pages: WorkPages;
  readonly sectorBytes: number;
}

export class DataRequest {
  readonly transfer: Transfer;
  /** Where in the transfer it begins. */
  readonly at: number;
  readonly segments: Segment[] = [];
  readonly #pages: WorkPages;
  readonly #copies: Copy[] = [];
  readonly #holds: PageHold[] = [];
  #listPage: number | undefined;
  #lengthBytes = 0;

  private constructor(transfer: Transfer, at: number, pages: WorkPages) {
    this.transfer = transfer;
    this.at = at;
    this.#pages = pages;
  }

  /**
   * Makes a request of as much as there are pages for, from byte `at` of a transfer to `end` at
   * most. Undefined when there is not one page.
   */
  static plan(
    transfer: Transfer,
    at: number,
    end: number,
    segmentsMax: number,
    sources: PageSources,
  ): DataRequest | undefined {
    const request = new DataRequest(transfer, at, sources.pages);
    // The page for a list is set aside first: the bytes may take all others.
    if (segmentsMax > BLKIF_MAX_SEGMENTS_PER_REQUEST) request.#listPage = sources.pages.take();
    while (request.end < end && request.segments.length < segmentsMax) {
      if (!request.#addDirect(end, sources) && !request.#addCopy(end, sources)) break;
    }
    if (request.segments.length <= BLKIF_MAX_SEGMENTS_PER_REQUEST) request.#giveListPage();
    return request.segments.length === 0 ? undefined : request;
  }

  /** Bytes on the disk. */
  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  /** Where in the transfer it ends. */
  get end(): number {
    return this.at + this.#lengthBytes;
  }

  /** The page for the segment list, where there are too many for a direct request. */
  get listPage(): number | undefined {
    return this.#listPage;
  }

  /** Puts the bytes of a write into its work pages; false when their buffers are gone. */
  fill(): boolean {
    return this.#copies.every(({ page, at, lengthBytes }) =>
      this.transfer.copyOut(at, this.#pages.bytes(page, lengthBytes)),
    );
  }

  /** Brings the bytes of a read into its buffers; false when these are gone. */
  deliver(): boolean {
    return this.#copies.every(({ page, at, lengthBytes }) =>
      this.transfer.copyIn(at, this.#pages.bytes(page, lengthBytes)),
    );
  }

  /** Gives all pages back. The back end must have finished with them. */
  release(): void {
    for (const hold of this.#holds) hold.release();
    for (const { page } of this.#copies) this.#pages.give(page);
    this.#giveListPage();
  }

  #giveListPage(): void {
    if (this.#listPage !== undefined) this.#pages.give(this.#listPage);
    this.#listPage = undefined;
  }

  #addDirect(end: number, { buffers, sectorBytes }: PageSources): boolean {
    const at = this.end;
    const piece = this.transfer.pieceAt(at);
    const directBytes = buffers.directBytes(piece.bytes, piece.offset, sectorBytes);
    if (directBytes === 0) return false;
    const lengthBytes = Math.min(directBytes, piece.lengthBytes, end - at);
    const hold = buffers.hold(piece.bytes, piece.offset);
    this.#holds.push(hold);
    this.#add(hold.gref, PAGE_SIZE - directBytes, lengthBytes);
    return true;
  }

  #addCopy(end: number, { buffers, pages, sectorBytes }: PageSources): boolean {
    const page = pages.take();
    if (page === undefined) return false;
    const at = this.end;
    let lengthBytes = 0;
    do {
      const piece = this.transfer.pieceAt(at + lengthBytes);
      const isDirect =
        lengthBytes > 0 && buffers.directBytes(piece.bytes, piece.offset, sectorBytes) > 0;
      if (isDirect) break;
      lengthBytes += Math.min(piece.lengthBytes, PAGE_SIZE - lengthBytes, end - at - lengthBytes);
    } while (lengthBytes < PAGE_SIZE && at + lengthBytes < end);
    this.#copies.push({ page, at, lengthBytes });
    this.#add(pages.gref(page), 0, lengthBytes);
    return true;
  }

  #add(gref: number, offset: number, lengthBytes: number): void {
    const firstSector = offset / RING_SECTOR_BYTES;
    const lastSector = firstSector + lengthBytes / RING_SECTOR_BYTES - 1;
    this.segments.push({ gref, firstSector, lastSector });
    this.#lengthBytes += lengthBytes;
  }
}
