/**
 * A ring of one connection and the requests on it. Every response is copied once and checked
 * against what was asked before it counts; the number of a slot's record is the id of its request.
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
  encodeEmptyBarrier,
  encodeFlush,
  encodeIndirectGref,
  encodeIndirectRequest,
  encodeSegment,
  FrontRing,
  RING_BROKEN,
  RING_SECTOR_BYTES,
  responseFault,
  SEGMENT_BYTES,
  SEGMENTS_PER_INDIRECT_PAGE,
  segmentOffset,
} from '../blkif/index.ts';
import type { Attachment } from '../frontend/index.ts';
import { PAGE_SIZE, viewMemory } from '../sys/index.ts';
import type { BlockResult } from './block-error.ts';
import type { DataRequest, Segment } from './data-request.ts';
import type { WorkPages } from './work-pages.ts';

/** A flush that somebody waits for. */
export interface FlushRequest {
  settle(result: BlockResult): void;
}

/** What is on the ring. */
export type RingRequest = DataRequest | FlushRequest;

/** A request that was answered. */
export interface Answer {
  readonly request: RingRequest;
  /** One of BlkifStatus. */
  readonly status: number;
}

/** The back end did what it may not do; the ring must not be used any more. */
export class RingFault extends Error {
  override readonly name = 'RingFault';
}

interface Asked {
  readonly request: RingRequest;
  /** The operation that the response must name. */
  readonly operation: number;
}

export class BlockRing {
  readonly #ring: FrontRing;
  readonly #layout: BlkifLayout;
  readonly #handle: number;
  readonly #indirectSegments: number;
  readonly #response: BlkifResponse = createResponse();
  readonly #freeIds: number[];
  /** By id; in the order in which they were asked. */
  readonly #asked = new Map<number, Asked>();

  /** @throws RingFault when the back end has written to the ring already. */
  constructor(attachment: Attachment) {
    const { abi, vbd, maxIndirectSegments } = attachment;
    const queue = attachment.queues[0];
    if (queue === undefined) throw new Error('a connection without a ring');
    const { address, pageCount } = queue.ring;
    const area = createRingArea({
      buffer: viewMemory(address, pageCount * PAGE_SIZE),
      offsetBytes: 0,
      ringPageCount: pageCount,
      abi,
    });
    try {
      this.#ring = FrontRing.attach(area);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new RingFault('it published responses before the first request', { cause: error });
    }
    this.#layout = blkifLayout(abi);
    this.#handle = vbd.id & 0xffff;
    this.#indirectSegments = Math.min(maxIndirectSegments, SEGMENTS_PER_INDIRECT_PAGE);
    this.#freeIds = Array.from({ length: area.slotCount }, (_, id) => area.slotCount - 1 - id);
  }

  get hasRoom(): boolean {
    return this.#freeIds.length > 0;
  }

  get inFlight(): number {
    return this.#asked.size;
  }

  /** Most segments of a request; one whose segments stand in a page of their own may have more. */
  segmentsMax(hasListPage: boolean): number {
    const indirectSegments = hasListPage ? this.#indirectSegments : 0;
    return Math.max(BLKIF_MAX_SEGMENTS_PER_REQUEST, indirectSegments);
  }

  /** What has no answer, in the order in which it was asked. */
  unanswered(): RingRequest[] {
    return [...this.#asked.values()].map(({ request }) => request);
  }

  /** Asks for a part of a transfer. There must be room, and a list page for many segments. */
  transfer(request: DataRequest, pages: WorkPages): void {
    const { transfer, at, segments, listPage } = request;
    const operation = transfer.isWrite ? BlkifOp.BLKIF_OP_WRITE : BlkifOp.BLKIF_OP_READ;
    const firstSector = (transfer.firstByte + at) / RING_SECTOR_BYTES;
    const id = this.#begin(request, operation);
    const slot = this.#ring.reserveSlot();
    const { view } = this.#ring;
    const count = segments.length;
    const form = [view, slot, this.#layout, operation, this.#handle, id, firstSector] as const;
    if (listPage === undefined) {
      encodeDirectRequest(...form, count);
      encodeSegments(view, segmentOffset(slot, this.#layout, 0), segments);
      return;
    }
    encodeIndirectRequest(...form, count);
    encodeIndirectGref(view, slot, this.#layout, 0, pages.gref(listPage));
    encodeSegments(pages.view, listPage * PAGE_SIZE, segments);
  }

  /** Asks for a flush, or for an empty barrier instead. There must be room. */
  flush(request: FlushRequest, isBarrier: boolean): void {
    const operation = isBarrier ? BlkifOp.BLKIF_OP_WRITE_BARRIER : BlkifOp.BLKIF_OP_FLUSH_DISKCACHE;
    const id = this.#begin(request, operation);
    const slot = this.#ring.reserveSlot();
    const encode = isBarrier ? encodeEmptyBarrier : encodeFlush;
    encode(this.#ring.view, slot, this.#layout, this.#handle, id);
  }

  /** Shows what was asked to the back end; returns whether it has to be notified. */
  publish(): boolean {
    return this.#ring.publish();
  }

  /** Whether more responses came while we were about to wait; asks to be woken otherwise. */
  finalCheck(): boolean {
    return this.#ring.finalCheck();
  }

  /**
   * Takes the responses that are there, one by one.
   *
   * @throws RingFault at the first that cannot be; those before it count.
   */
  *collect(): Generator<Answer> {
    const count = this.#ring.pendingResponses();
    if (count === RING_BROKEN) {
      throw new RingFault('it published more responses than there were requests');
    }
    for (let taken = 0; taken < count; taken++) yield this.#take();
  }

  #begin(request: RingRequest, operation: number): number {
    const id = this.#freeIds.pop();
    if (id === undefined) throw new Error('a request was made without room for it');
    this.#asked.set(id, { request, operation });
    return id;
  }

  #take(): Answer {
    const response = this.#response;
    decodeResponse(this.#ring.view, this.#ring.responseOffset(0), response);
    this.#ring.consume(1);
    const { id, status } = response;
    const asked = this.#asked.get(id);
    const fault = responseFault(response, asked?.operation);
    if (fault !== undefined || asked === undefined) throw new RingFault(fault);
    this.#asked.delete(id);
    this.#freeIds.push(id);
    return { request: asked.request, status };
  }
}

function encodeSegments(
  view: DataView<ArrayBufferLike>,
  at: number,
  segments: readonly Segment[],
): void {
  for (const [index, { gref, firstSector, lastSector }] of segments.entries()) {
    encodeSegment(view, at + index * SEGMENT_BYTES, gref, firstSector, lastSector);
  }
}
