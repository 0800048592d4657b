/**
 * The requests that are on the ring: encodes them, remembers what each was for, and checks every
 * response against that memory before anyone acts on it (the rules of Linux's blkif_interrupt).
 *
 * A request's id is the number of its record. Records and free slots are the same budget, so a
 * record is free whenever a slot is.
 */

import {
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  type BlkifLayout,
  BlkifOp,
  type BlkifResponse,
  blkifLayout,
  createResponse,
  createRingArea,
  decodeResponse,
  encodeDirectRequest,
  encodeDiscard,
  encodeEmptyBarrier,
  encodeFlush,
  encodeIndirectGref,
  encodeIndirectRequest,
  encodeSegment,
  FrontRing,
  isBlkifStatus,
  RING_BROKEN,
  SEGMENT_BYTES,
  segmentOffset,
} from '../blkif/index.ts';
import { PAGE_SIZE, viewMemory } from '../sys/index.ts';
import type { DiskShape, LaneRing } from './lane-config.ts';
import { type Operation, Stage } from './operation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';

const RING_SECTOR_BYTES = 512;
const SECTORS_PER_PAGE = PAGE_SIZE / RING_SECTOR_BYTES;

/** What a request on the ring is for. */
export const PartRole = { DATA: 0, EDGE: 1, ZEROES: 2, FLUSH: 3, DISCARD: 4 } as const;
export type PartRole = (typeof PartRole)[keyof typeof PartRole];

/** One request on the ring. */
export class Part {
  readonly id: number;
  isInFlight = false;
  role: PartRole = PartRole.DATA;
  /** The blkif operation that its response must name. */
  blkifOp = 0;
  operation: Operation | undefined = undefined;
  firstPage: number = NO_PAGE;
  pageCount = 0;
  /** Its pages are given back when it is done; otherwise they belong to the operation. */
  ownsPages = false;
  indirectPage: number = NO_PAGE;
  firstByte = 0.5;
  lengthBytes = 0;
  /** Of the response. */
  status = 0;

  constructor(id: number) {
    this.id = id;
    this.firstByte = 0;
  }
}

export class RingRequests {
  /** Most segments, which are pages, of one request. */
  readonly maxSegments: number;
  readonly #ring: FrontRing;
  readonly #layout: BlkifLayout;
  readonly #handle: number;
  readonly #pool: PagePool;
  readonly #indirectPool: PagePool | undefined;
  readonly #indirectView: DataView | undefined;
  readonly #flushOp: number;
  readonly #parts: Part[] = [];
  readonly #free: Part[] = [];
  #freeCount: number;
  readonly #response: BlkifResponse = createResponse();
  /** Why the ring must not be used any more. */
  #fault: string | undefined;

  constructor(
    config: LaneRing,
    disk: DiskShape,
    pool: PagePool,
    indirectPool: PagePool | undefined,
  ) {
    const area = createRingArea({
      buffer: viewMemory(config.address, config.pageCount * PAGE_SIZE),
      offsetBytes: 0,
      ringPageCount: config.pageCount,
      abi: config.abi,
    });
    this.#ring = FrontRing.attach(area);
    this.#layout = blkifLayout(config.abi);
    this.#handle = config.handle & 0xffff;
    this.#pool = pool;
    this.#indirectPool = indirectPool;
    this.#indirectView =
      indirectPool === undefined
        ? undefined
        : new DataView(indirectPool.bytes.buffer, 0, indirectPool.bytes.length);
    this.#flushOp =
      disk.flush === 'barrier' ? BlkifOp.BLKIF_OP_WRITE_BARRIER : BlkifOp.BLKIF_OP_FLUSH_DISKCACHE;
    this.maxSegments =
      indirectPool === undefined
        ? Math.min(config.maxSegments, BLKIF_MAX_SEGMENTS_PER_REQUEST)
        : config.maxSegments;
    for (let id = 0; id < area.slotCount; id++) this.#parts.push(new Part(id));
    this.#free.push(...this.#parts.toReversed());
    this.#freeCount = area.slotCount;
  }

  get slotCount(): number {
    return this.#parts.length;
  }

  get freeSlots(): number {
    return this.#freeCount;
  }

  get inFlight(): number {
    return this.#parts.length - this.#freeCount;
  }

  get hasRoom(): boolean {
    return this.#freeCount > 0;
  }

  /** Whether a request of so many segments can be made now. */
  hasRoomFor(segments: number): boolean {
    if (this.#freeCount === 0) return false;
    if (segments <= BLKIF_MAX_SEGMENTS_PER_REQUEST) return true;
    return this.#indirectPool !== undefined && this.#indirectPool.freeCount > 0;
  }

  /** What the backend did that it may not do; undefined while it behaves. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /**
   * Asks for the next `lengthBytes` of a read or write, in pages that start at `firstPage`. Returns
   * the last of these pages.
   */
  transfer(operation: Operation, firstPage: number, pages: number, lengthBytes: number): number {
    const isRead = operation.stage === Stage.READ;
    const part = this.#begin(
      PartRole.DATA,
      operation,
      isRead ? BlkifOp.BLKIF_OP_READ : BlkifOp.BLKIF_OP_WRITE,
    );
    part.firstPage = firstPage;
    part.pageCount = pages;
    part.ownsPages = !isRead || operation.spillAddress !== 0;
    part.firstByte = operation.firstByte + operation.issuedBytes;
    part.lengthBytes = lengthBytes;
    return this.#encodeData(part, this.#pool);
  }

  /** Reads or writes back one sector at the end of a ragged range. */
  edge(
    operation: Operation,
    page: number,
    firstByte: number,
    lengthBytes: number,
    isWrite: boolean,
  ): void {
    const part = this.#begin(
      PartRole.EDGE,
      operation,
      isWrite ? BlkifOp.BLKIF_OP_WRITE : BlkifOp.BLKIF_OP_READ,
    );
    part.firstPage = page;
    part.pageCount = 1;
    part.ownsPages = false;
    part.firstByte = firstByte;
    part.lengthBytes = lengthBytes;
    this.#encodeData(part, this.#pool);
  }

  /** Writes zeroes over the next `lengthBytes`, from pages that are only ever read. */
  zeroes(operation: Operation, zeroPool: PagePool, pages: number, lengthBytes: number): void {
    const part = this.#begin(PartRole.ZEROES, operation, BlkifOp.BLKIF_OP_WRITE);
    part.firstPage = 0;
    part.pageCount = pages;
    part.ownsPages = false;
    part.firstByte = operation.firstByte + operation.issuedBytes;
    part.lengthBytes = lengthBytes;
    this.#encodeData(part, zeroPool);
  }

  discard(operation: Operation): void {
    const part = this.#begin(PartRole.DISCARD, operation, BlkifOp.BLKIF_OP_DISCARD);
    const firstSector = operation.firstByte / RING_SECTOR_BYTES;
    const sectorCount = operation.gridBytes / RING_SECTOR_BYTES;
    const at = this.#ring.reserveSlot();
    encodeDiscard(
      this.#ring.view,
      at,
      this.#layout,
      0,
      this.#handle,
      part.id,
      firstSector,
      sectorCount,
    );
  }

  flush(): void {
    const part = this.#begin(PartRole.FLUSH, undefined, this.#flushOp);
    const at = this.#ring.reserveSlot();
    if (this.#flushOp === BlkifOp.BLKIF_OP_WRITE_BARRIER) {
      encodeEmptyBarrier(this.#ring.view, at, this.#layout, this.#handle, part.id);
    } else {
      encodeFlush(this.#ring.view, at, this.#layout, this.#handle, part.id);
    }
  }

  /** Shows the new requests to the backend; returns whether it has to be notified. */
  publish(): boolean {
    return this.#ring.publish();
  }

  /** Whether more responses came while we were about to sleep; asks to be woken otherwise. */
  finalCheck(): boolean {
    return this.#ring.finalCheck();
  }

  /** How many responses to take now; -1 when the ring is broken. */
  pending(): number {
    const count = this.#ring.pendingResponses();
    if (count !== RING_BROKEN) return count;
    this.#fault ??= 'it published more responses than there were requests';
    return -1;
  }

  /**
   * Takes the next response and returns the request it answers, with its status; undefined when no
   * request can have this answer. The response is copied once and only the copy is believed.
   */
  takeResponse(): Part | undefined {
    const response = this.#response;
    decodeResponse(this.#ring.view, this.#ring.responseOffset(0), response);
    this.#ring.consume(1);
    const part = this.#parts[response.id];
    if (part === undefined || !part.isInFlight) {
      this.#fault ??= `it answered request ${response.id}, which is not in flight`;
      return undefined;
    }
    if (response.operation !== part.blkifOp) {
      this.#fault ??= `it answered operation ${response.operation} to a request for ${part.blkifOp}`;
      return undefined;
    }
    if (!isBlkifStatus(response.status)) {
      this.#fault ??= `it answered with the unknown status ${response.status}`;
      return undefined;
    }
    part.status = response.status;
    part.isInFlight = false;
    return part;
  }

  /** Gives back the record of an answered request, after it was dealt with. */
  freePart(part: Part): void {
    if (part.indirectPage !== NO_PAGE) {
      this.#indirectPool?.give(part.indirectPage);
      part.indirectPage = NO_PAGE;
    }
    part.operation = undefined;
    this.#free[this.#freeCount] = part;
    this.#freeCount += 1;
  }

  #begin(role: PartRole, operation: Operation | undefined, blkifOp: number): Part {
    this.#freeCount -= 1;
    const part = this.#free[this.#freeCount] as Part;
    part.isInFlight = true;
    part.role = role;
    part.operation = operation;
    part.blkifOp = blkifOp;
    part.firstPage = NO_PAGE;
    part.pageCount = 0;
    if (operation !== undefined) operation.partsInFlight += 1;
    return part;
  }

  #encodeData(part: Part, pool: PagePool): number {
    const view = this.#ring.view;
    const layout = this.#layout;
    const at = this.#ring.reserveSlot();
    const firstSector = part.firstByte / RING_SECTOR_BYTES;
    if (part.pageCount <= BLKIF_MAX_SEGMENTS_PER_REQUEST) {
      encodeDirectRequest(
        view,
        at,
        layout,
        part.blkifOp,
        this.#handle,
        part.id,
        firstSector,
        part.pageCount,
      );
      return encodeSegments(view, segmentOffset(at, layout, 0), part, pool);
    }
    const indirectPool = this.#indirectPool as PagePool;
    const indirectPage = indirectPool.take();
    part.indirectPage = indirectPage;
    encodeIndirectRequest(
      view,
      at,
      layout,
      part.blkifOp,
      this.#handle,
      part.id,
      firstSector,
      part.pageCount,
    );
    encodeIndirectGref(view, at, layout, 0, indirectPool.gref(indirectPage));
    return encodeSegments(this.#indirectView as DataView, indirectPage * PAGE_SIZE, part, pool);
  }
}

/** Writes one segment for each page of the part; returns the last page. */
function encodeSegments(view: DataView, at: number, part: Part, pool: PagePool): number {
  let page = part.firstPage;
  let sectorsLeft = part.lengthBytes / RING_SECTOR_BYTES;
  let last = page;
  for (let index = 0; index < part.pageCount; index++) {
    const sectors = Math.min(sectorsLeft, SECTORS_PER_PAGE);
    encodeSegment(view, at + index * SEGMENT_BYTES, pool.gref(page), 0, sectors - 1);
    sectorsLeft -= sectors;
    last = page;
    page = pool.next(page);
  }
  return last;
}
