/**
 * The requests that are on the ring: encodes them, remembers what each was for, and checks every
 * response against that memory before anyone acts on it (the rules of Linux's blkif_interrupt).
 *
 * A request's id is the number of its record. There are as many records as slots, and each request
 * takes one of both, so a slot is free whenever a record is.
 *
 * Small reads, or writes, of neighbouring sectors that are made in the same turn share one request:
 * each has its record, and the first one's id. When such a request fails, each is asked by itself,
 * so that a bad sector fails nobody but those who asked for it.
 *
 * A ring can be lost (the backend restarted, the guest was restored) and replaced by another, with
 * other limits. What was unanswered is then asked again, in the order in which it was asked first
 * and before anything new: reads and writes may be repeated, and a flush still follows the writes
 * that it followed.
 */

import {
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  type BlkifLayout,
  BlkifOp,
  type BlkifResponse,
  blkifLayout,
  copyRequest,
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
  RING_BROKEN,
  type RingArea,
  requestedOperation,
  responseFault,
  SEGMENT_BYTES,
  segmentOffset,
} from '../blkif/index.ts';
import { PAGE_SIZE, viewMemory } from '../sys/index.ts';
import type { DiskShape, LaneRing } from './lane-config.ts';
import { type Operation, Stage } from './operation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';
import { Part, PartRole } from './part.ts';

const RING_SECTOR_BYTES = 512;
const SECTORS_PER_PAGE = PAGE_SIZE / RING_SECTOR_BYTES;

/** The granted pages that requests are made of. */
export interface RingPools {
  readonly pool: PagePool;
  /** Pages that are always zero, and whose list is all of them in order. */
  readonly zeroPool: PagePool;
  /** Pages for segment lists; undefined when requests are direct. */
  readonly indirectPool: PagePool | undefined;
}

export class RingRequests {
  readonly #pool: PagePool;
  readonly #zeroPool: PagePool;
  readonly #indirectPool: PagePool | undefined;
  readonly #response: BlkifResponse = createResponse();
  #ring: FrontRing;
  #layout: BlkifLayout;
  #handle: number;
  #maxSegments: number;
  #flushOp: number;
  #parts: Part[] = [];
  #free: Part[] = [];
  #freeCount = 0;
  #order = 0;
  #relayedCount = 0;
  /** The ring is lost, and nothing may be put on it or taken from it. */
  #isSuspended = false;
  /** The backend wants to close: what is on the ring is its last. */
  #isHeld = false;
  /** Requests of a lost ring, and parts of a failed one, that were not asked again yet. */
  #replay: Part[] = [];
  /** The newest request on the ring while others may join it: it is not published, and direct. */
  #openFirst: Part | undefined;
  #openLast: Part | undefined;
  #openAt = 0;
  #openPages = 0;
  #joinedCount = 0;
  /** Records that are in use without a slot. */
  #joinedNow = 0;
  /** Why the ring must not be used any more. */
  #fault: string | undefined;

  constructor(config: LaneRing, disk: DiskShape, pools: RingPools) {
    this.#pool = pools.pool;
    this.#zeroPool = pools.zeroPool;
    this.#indirectPool = pools.indirectPool;
    this.#flushOp = flushOperation(disk);
    const area = ringArea(config);
    this.#ring = this.#attach(area);
    this.#layout = blkifLayout(config.abi);
    this.#handle = config.handle & 0xffff;
    this.#maxSegments = this.#segmentsOf(config);
    this.#createParts(area.slotCount);
  }

  /** The backend can write to a ring as soon as it has mapped it, before our first request. */
  #attach(area: RingArea): FrontRing {
    try {
      return FrontRing.attach(area);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.#fault ??= 'it published responses before the first request';
      return FrontRing.initialise(area);
    }
  }

  /** Most segments, which are pages, of one request. */
  get maxSegments(): number {
    return this.#maxSegments;
  }

  /** Makes no more requests until {@link resume}; those on the ring are still collected. */
  hold(): void {
    this.#isHeld = true;
  }

  /** The ring is lost: until {@link resume} there is no room, and nothing is collected. */
  suspend(): void {
    this.#isSuspended = true;
  }

  /**
   * Goes on with a new ring. The old backend must be known to have finished: a request that it
   * still executes could undo a later write, and a page that it still fills could be in other use.
   */
  resume(config: LaneRing, disk: DiskShape): void {
    // What was relayed, its lane asks again.
    const unanswered = this.#parts.filter(
      ({ isInFlight, role }) => isInFlight && role !== PartRole.RELAYED,
    );
    unanswered.sort((one, other) => one.order - other.order);
    this.#replay = [...unanswered, ...this.#replay];
    for (const part of unanswered) this.#giveIndirectPage(part);
    const area = ringArea(config);
    this.#ring = this.#attach(area);
    this.#layout = blkifLayout(config.abi);
    this.#handle = config.handle & 0xffff;
    this.#maxSegments = this.#segmentsOf(config);
    this.#flushOp = flushOperation(disk);
    this.#createParts(area.slotCount);
    this.#isSuspended = false;
    this.#isHeld = false;
    this.replay();
  }

  /** Asks again what a lost ring left unanswered, as far as there is room. */
  replay(): void {
    while (this.#replay.length > 0 && !this.#isSuspended && !this.#isHeld) {
      const lost = this.#replay[0] as Part;
      if (!this.#ask(lost)) return;
      this.#replay.shift();
    }
  }

  get replaying(): number {
    return this.#replay.length;
  }

  #segmentsOf(config: LaneRing): number {
    const isDirect = this.#indirectPool === undefined;
    return isDirect
      ? Math.min(config.maxSegments, BLKIF_MAX_SEGMENTS_PER_REQUEST)
      : config.maxSegments;
  }

  #createParts(slotCount: number): void {
    this.#parts = Array.from({ length: slotCount }, (_, id) => new Part(id));
    this.#free = this.#parts.toReversed();
    this.#freeCount = slotCount;
    this.#joinedNow = 0;
    this.#openLast = undefined;
  }

  /**
   * Puts a lost request, or what is left of it, on the ring; it may have to become several smaller
   * ones. False when there was no room for all of it.
   */
  #ask(lost: Part): boolean {
    if (lost.pageCount === 0) {
      if (this.#freeCount === 0) return false;
      const part = this.#begin(lost.role, undefined, lost.blkifOp);
      part.operation = lost.operation;
      if (lost.role === PartRole.FLUSH) this.#encodeFlush(part);
      else this.#encodeDiscard(part);
      return true;
    }
    const pool = lost.role === PartRole.ZEROES ? this.#zeroPool : this.#pool;
    while (lost.pageCount > 0) {
      const pages = Math.min(lost.pageCount, this.#maxSegments);
      if (!this.#canHold(pages)) return false;
      const part = this.#begin(lost.role, undefined, lost.blkifOp);
      part.operation = lost.operation;
      part.firstPage = lost.firstPage;
      part.pageCount = pages;
      part.ownsPages = lost.ownsPages;
      part.firstByte = lost.firstByte;
      part.lengthBytes = Math.min(lost.lengthBytes, pages * PAGE_SIZE);
      const last = this.#encodeData(part, pool);
      lost.firstPage = pool.next(last);
      lost.pageCount -= pages;
      lost.firstByte += part.lengthBytes;
      lost.lengthBytes -= part.lengthBytes;
      // One request of the operation has become two.
      if (lost.pageCount > 0 && lost.operation !== undefined) lost.operation.partsInFlight += 1;
    }
    return true;
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

  get slotsUsed(): number {
    return this.inFlight - this.#joinedNow;
  }

  /** Requests made in the whole life of the lane, those of other lanes not among them. */
  get requestCount(): number {
    return this.#order - this.#relayedCount - this.#joinedCount;
  }

  /** Reads and writes that needed no request of their own. */
  get joinedCount(): number {
    return this.#joinedCount;
  }

  /** Requests of other lanes that were passed on. */
  get relayedCount(): number {
    return this.#relayedCount;
  }

  /** Whether a request of another lane can be passed on, which is not asked by us: also on hold. */
  get canRelay(): boolean {
    // On hold what waits to be asked again waits for the next ring, and must not keep others.
    const isBehind = this.#replay.length > 0 && !this.#isHeld;
    return this.#freeCount > 0 && !this.#isSuspended && !isBehind;
  }

  /** Whether a request without data can be made now. */
  get hasRoom(): boolean {
    const isOpen = !this.#isSuspended && !this.#isHeld;
    return this.#freeCount > 0 && isOpen && this.#replay.length === 0;
  }

  /** Whether a request of so many segments can be made now. */
  hasRoomFor(segments: number): boolean {
    return this.hasRoom && this.#canHold(segments);
  }

  #canHold(segments: number): boolean {
    if (this.#freeCount === 0) return false;
    if (segments <= BLKIF_MAX_SEGMENTS_PER_REQUEST) return true;
    return this.#indirectPool !== undefined && this.#indirectPool.freeCount > 0;
  }

  /** What the backend did that it may not do; undefined while it behaves. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /**
   * Asks for the next `lengthBytes` of a read or write, in pages that start at `firstPage`: joins
   * the request before it where that ends just there. Returns the last of these pages.
   */
  transfer(operation: Operation, firstPage: number, pages: number, lengthBytes: number): number {
    const isRead = operation.stage === Stage.READ;
    const blkifOp = isRead ? BlkifOp.BLKIF_OP_READ : BlkifOp.BLKIF_OP_WRITE;
    const canJoin = this.#canJoin(operation, blkifOp, pages);
    const before = this.#openLast;
    const part = this.#begin(PartRole.DATA, operation, blkifOp);
    part.firstPage = firstPage;
    part.pageCount = pages;
    part.ownsPages = !isRead || operation.spillAddress !== 0;
    part.firstByte = operation.firstByte + operation.issuedBytes;
    part.lengthBytes = lengthBytes | 0;
    if (canJoin && before !== undefined) {
      before.joined = part;
      part.isJoined = true;
      this.#joinedNow += 1;
      this.#openLast = part;
      return this.#encodeJoined(part);
    }
    const last = this.#encodeData(part, this.#pool);
    this.#openFirst = part;
    this.#openLast = part;
    this.#openPages = pages;
    return last;
  }

  /** Whether the next data of the operation can be more segments of the request before it. */
  #canJoin(operation: Operation, blkifOp: number, pages: number): boolean {
    const before = this.#openLast;
    return (
      before !== undefined &&
      before.blkifOp === blkifOp &&
      this.#openPages + pages <= Math.min(this.#maxSegments, BLKIF_MAX_SEGMENTS_PER_REQUEST) &&
      before.firstByte + before.lengthBytes === operation.firstByte + operation.issuedBytes
    );
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
    part.lengthBytes = lengthBytes | 0;
    this.#encodeData(part, this.#pool);
  }

  /** Writes zeroes over the next `lengthBytes`, from pages that are only ever read. */
  zeroes(operation: Operation, pages: number, lengthBytes: number): void {
    const part = this.#begin(PartRole.ZEROES, operation, BlkifOp.BLKIF_OP_WRITE);
    part.firstPage = 0;
    part.pageCount = pages;
    part.ownsPages = false;
    part.firstByte = operation.firstByte + operation.issuedBytes;
    part.lengthBytes = lengthBytes | 0;
    this.#encodeData(part, this.#zeroPool);
  }

  discard(operation: Operation): void {
    this.#encodeDiscard(this.#begin(PartRole.DISCARD, operation, BlkifOp.BLKIF_OP_DISCARD));
  }

  flush(): void {
    this.#encodeFlush(this.#begin(PartRole.FLUSH, undefined, this.#flushOp));
  }

  /** Passes on the request at `at` of a ring of the same ABI, which lane `guest` has made. */
  relay(source: DataView<ArrayBufferLike>, at: number, guest: number): void {
    const layout = this.#layout;
    const blkifOp = requestedOperation(source, at, layout);
    const part = this.#begin(PartRole.RELAYED, undefined, blkifOp);
    part.guest = guest;
    this.#relayedCount += 1;
    const { view } = this.#ring;
    part.guestId = copyRequest(source, at, view, this.#ring.reserveSlot(), layout, part.id);
  }

  /** From now on a flush is an empty barrier: the backend has said that it takes no other. */
  flushWithBarriers(): void {
    this.#flushOp = BlkifOp.BLKIF_OP_WRITE_BARRIER;
  }

  /** Shows the new requests to the backend; returns whether it has to be notified. */
  publish(): boolean {
    // The backend may read it from here on.
    this.#openLast = undefined;
    return !this.#isSuspended && this.#ring.publish();
  }

  /** Whether more responses came while we were about to sleep; asks to be woken otherwise. */
  finalCheck(): boolean {
    return !this.#isSuspended && this.#ring.finalCheck();
  }

  /** How many responses to take now; -1 when the ring is broken. */
  pending(): number {
    if (this.#isSuspended) return 0;
    if (this.#fault !== undefined) return -1;
    const count = this.#ring.pendingResponses();
    if (count !== RING_BROKEN) return count;
    this.#fault ??= 'it published more responses than there were requests';
    return -1;
  }

  /**
   * Takes the next response and returns the request it answers, with its status, and all that is
   * {@link Part.joined} to it; undefined when no request can have this answer. The response is
   * copied once and only the copy is believed.
   */
  takeResponse(): Part | undefined {
    const response = this.#response;
    decodeResponse(this.#ring.view, this.#ring.responseOffset(0), response);
    this.#ring.consume(1);
    const part = this.#parts[response.id];
    const isAsked = part?.isInFlight === true && !part.isJoined;
    const fault = responseFault(response, isAsked ? part.blkifOp : undefined);
    if (fault !== undefined || part === undefined) {
      this.#fault ??= fault;
      return undefined;
    }
    // Its record may be used anew from here on: nothing may join what it was.
    this.#openLast = undefined;
    let answered: Part | undefined = part;
    while (answered !== undefined) {
      answered.status = response.status;
      answered.isInFlight = false;
      answered = answered.joined;
    }
    return part;
  }

  /** Asks again, one by one, for what shared a request that failed. */
  askApart(first: Part): void {
    let part: Part | undefined = first;
    while (part !== undefined) {
      const next: Part | undefined = part.joined;
      this.#replay.push(part.copy());
      this.freePart(part);
      part = next;
    }
  }

  /** Gives back the record of an answered request, after it was dealt with. */
  freePart(part: Part): void {
    this.#giveIndirectPage(part);
    part.operation = undefined;
    part.joined = undefined;
    if (part.isJoined) this.#joinedNow -= 1;
    part.isJoined = false;
    this.#free[this.#freeCount] = part;
    this.#freeCount += 1;
  }

  #giveIndirectPage(part: Part): void {
    if (part.indirectPage === NO_PAGE) return;
    this.#indirectPool?.give(part.indirectPage);
    part.indirectPage = NO_PAGE;
  }

  #encodeDiscard(part: Part): void {
    const operation = part.operation as Operation;
    const firstSector = operation.firstByte / RING_SECTOR_BYTES;
    const sectorCount = operation.gridBytes / RING_SECTOR_BYTES;
    const { view } = this.#ring;
    const at = this.#ring.reserveSlot();
    encodeDiscard(view, at, this.#layout, 0, this.#handle, part.id, firstSector, sectorCount);
  }

  #encodeFlush(part: Part): void {
    part.blkifOp = this.#flushOp;
    const { view } = this.#ring;
    const at = this.#ring.reserveSlot();
    if (part.blkifOp === BlkifOp.BLKIF_OP_WRITE_BARRIER) {
      encodeEmptyBarrier(view, at, this.#layout, this.#handle, part.id);
    } else {
      encodeFlush(view, at, this.#layout, this.#handle, part.id);
    }
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
    this.#order += 1;
    part.order = this.#order;
    this.#openLast = undefined;
    if (operation !== undefined) operation.partsInFlight += 1;
    return part;
  }

  /** Adds the segments of `part` to those of the open request. */
  #encodeJoined(part: Part): number {
    const { view } = this.#ring;
    const layout = this.#layout;
    const at = this.#openAt;
    const first = this.#openFirst as Part;
    const segment = segmentOffset(at, layout, this.#openPages);
    this.#openPages += part.pageCount;
    this.#joinedCount += 1;
    encodeDirectRequest(
      view,
      at,
      layout,
      first.blkifOp,
      this.#handle,
      first.id,
      first.firstByte / RING_SECTOR_BYTES,
      this.#openPages,
    );
    return encodeSegments(view, segment, part, this.#pool);
  }

  #encodeData(part: Part, pool: PagePool): number {
    const view = this.#ring.view;
    const layout = this.#layout;
    const at = this.#ring.reserveSlot();
    this.#openAt = at;
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
    return encodeSegments(indirectPool.view, indirectPage * PAGE_SIZE, part, pool);
  }
}

function ringArea(config: LaneRing): RingArea {
  return createRingArea({
    buffer: viewMemory(config.address, config.pageCount * PAGE_SIZE),
    offsetBytes: 0,
    ringPageCount: config.pageCount,
    abi: config.abi,
  });
}

function flushOperation(disk: DiskShape): number {
  return disk.flush === 'barrier'
    ? BlkifOp.BLKIF_OP_WRITE_BARRIER
    : BlkifOp.BLKIF_OP_FLUSH_DISKCACHE;
}

/** Writes one segment for each page of the part; returns the last page. */
function encodeSegments(view: DataView, at: number, part: Part, pool: PagePool): number {
  let page = part.firstPage;
  let sectorsLeft = (part.lengthBytes / RING_SECTOR_BYTES) | 0;
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
