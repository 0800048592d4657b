/**
 * A blkif ring in shared memory, seen from both ends (xen/include/public/io/ring.h).
 *
 *   word  0  req_prod    written by the front end: requests up to here are filled
 *   word  1  req_event   written by the back end: wake me when req_prod reaches this
 *   word  2  rsp_prod    written by the back end: responses up to here are filled
 *   word  3  rsp_event   written by the front end: wake me when rsp_prod reaches this
 *   byte 64  slots, one after the other, also across page edges
 *
 * Ordering: the four words are only touched by Atomics, which are sequentially consistent. That is
 * stronger than each barrier of ring.h, and it works on memory that is not a SharedArrayBuffer.
 * Slots are plain memory; they are ordered by the atomic access to the producer index beside them.
 *
 * Trust: the other end can write the whole area, also "our" words. So each end keeps its own
 * indices in private fields and never reads back what it wrote; the other end's producer is read
 * once per call and checked against the private indices before it is used.
 *
 * Nothing here allocates after construction, also not for indices of 2^31 and more: those are kept
 * as signed numbers, since an unsigned one would live in a heap object of its own.
 *
 * Whether to notify is returned; how is the caller's.
 */

import { type BlkifAbi, blkifLayout, RING_HEADER_BYTES, slotCount } from './layout.ts';
import { GRANT_PAGE_BYTES } from './protocol.ts';
import { passesEvent, ringAdvance, ringDistance } from './ring-index.ts';

const REQ_PROD = 0;
const REQ_EVENT = 1;
const RSP_PROD = 2;
const RSP_EVENT = 3;
const HEADER_WORDS = RING_HEADER_BYTES / 4;

/** Returned in place of a count when the other end's producer index cannot be true. */
export const RING_BROKEN = -1;

/** The shared memory of one ring, and its geometry. */
export interface RingArea {
  /** The header, for Atomics. */
  readonly words: Uint32Array<ArrayBufferLike>;
  /** The whole ring; slot offsets are byte offsets into it. */
  readonly view: DataView<ArrayBufferLike>;
  readonly abi: BlkifAbi;
  readonly ringPageCount: number;
  readonly slotCount: number;
  readonly slotBytes: number;
}

/** Where a ring lies. */
export interface RingPlacement {
  /** Memory that both ends see. */
  readonly buffer: ArrayBufferLike;
  /** Where in `buffer` the ring begins: a multiple of 4. */
  readonly offsetBytes: number;
  readonly ringPageCount: number;
  readonly abi: BlkifAbi;
}

/**
 * Lays a ring over shared memory. Writes nothing.
 *
 * @throws RangeError when the memory is too short or not aligned.
 */
export function createRingArea(placement: RingPlacement): RingArea {
  const { buffer, offsetBytes, ringPageCount, abi } = placement;
  const lengthBytes = ringPageCount * GRANT_PAGE_BYTES;
  if (!Number.isInteger(ringPageCount) || ringPageCount < 1) {
    throw new RangeError(`A ring cannot have ${ringPageCount} pages.`);
  }
  return {
    words: new Uint32Array(buffer, offsetBytes, HEADER_WORDS),
    view: new DataView(buffer, offsetBytes, lengthBytes),
    abi,
    ringPageCount,
    slotCount: slotCount(ringPageCount, abi),
    slotBytes: blkifLayout(abi).slotBytes,
  };
}

/**
 * Writes the start values of a shared header: both producers at `startIndex`, both events one
 * further, all else zero. Done by the front end before it tells the grant references.
 */
function initialiseHeader(area: RingArea, startIndex: number): void {
  for (let word = 0; word < HEADER_WORDS; word++) {
    Atomics.store(area.words, word, 0);
  }
  Atomics.store(area.words, REQ_PROD, startIndex);
  Atomics.store(area.words, RSP_PROD, startIndex);
  Atomics.store(area.words, REQ_EVENT, ringAdvance(startIndex, 1));
  Atomics.store(area.words, RSP_EVENT, ringAdvance(startIndex, 1));
}

/** The header as signed numbers, which is how the rings keep their indices. */
function signedHeader({ words }: RingArea): Int32Array<ArrayBufferLike> {
  return new Int32Array(words.buffer, words.byteOffset, words.length);
}

/** The front end: produces requests, consumes responses. Owned by one thread. */
export class FrontRing {
  readonly view: DataView<ArrayBufferLike>;
  readonly slotCount: number;
  private readonly words: Int32Array<ArrayBufferLike>;
  private readonly slotBytes: number;
  private readonly mask: number;
  /** req_prod_pvt: the next request to fill. */
  private nextRequest: number;
  /** What we last stored to req_prod. */
  private publishedRequests: number;
  /** rsp_cons: the next response to read. */
  private nextResponse: number;

  private constructor(area: RingArea, requestIndex: number, responseIndex: number) {
    this.view = area.view;
    this.words = signedHeader(area);
    this.slotCount = area.slotCount;
    this.slotBytes = area.slotBytes;
    this.mask = area.slotCount - 1;
    this.nextRequest = requestIndex | 0;
    this.publishedRequests = requestIndex | 0;
    this.nextResponse = responseIndex | 0;
  }

  /** Starts a fresh ring and writes its shared header. Indices start at `startIndex`, a u32. */
  static initialise(area: RingArea, startIndex = 0): FrontRing {
    const start = startIndex | 0;
    initialiseHeader(area, start);
    return new FrontRing(area, start, start);
  }

  /**
   * Takes over a ring whose header was initialised before and on which no request was ever
   * published, e.g. by another thread of this process during the handshake.
   *
   * @throws RangeError when requests are in flight: only the one who sent them knows their slots.
   */
  static attach(area: RingArea): FrontRing {
    const requests = Atomics.load(area.words, REQ_PROD);
    const responses = Atomics.load(area.words, RSP_PROD);
    if (requests !== responses) {
      throw new RangeError(
        `The ring cannot be taken over: req_prod is ${requests} and rsp_prod is ${responses}.`,
      );
    }
    return new FrontRing(area, requests, responses);
  }

  /** Requests that may still be filled. A free slot and a free request id are the same budget. */
  freeSlots(): number {
    return this.slotCount - ringDistance(this.nextResponse, this.nextRequest);
  }

  /** Requests filled, published or not, whose response was not consumed yet. */
  unanswered(): number {
    return ringDistance(this.nextResponse, this.nextRequest);
  }

  /** Requests filled and not yet published. */
  unpublished(): number {
    return ringDistance(this.publishedRequests, this.nextRequest);
  }

  /**
   * Takes the next slot and returns its byte offset in {@link view}. The caller fills it; the back
   * end cannot see it before {@link publish}, so any number of requests costs one publication.
   *
   * @throws RangeError when there is no free slot: look at {@link freeSlots} first.
   */
  reserveSlot(): number {
    const index = this.nextRequest;
    // A full ring's next slot still holds a request that the back end may be reading.
    if (ringDistance(this.nextResponse, index) >= this.slotCount) {
      throw new RangeError('A request was started on a full ring.');
    }
    this.nextRequest = ringAdvance(index, 1);
    return RING_HEADER_BYTES + (index & this.mask) * this.slotBytes;
  }

  /**
   * Shows the filled requests to the back end. Returns whether it must be notified; false when
   * nothing was filled.
   */
  publish(): boolean {
    const previous = this.publishedRequests;
    const producer = this.nextRequest;
    if (previous === producer) {
      return false;
    }
    this.publishedRequests = producer;
    // The store is a release of the slots: a back end that sees req_prod sees the requests whole.
    Atomics.store(this.words, REQ_PROD, producer);
    // The load must not move before the store. The back end does the mirror image before it sleeps
    // (stores req_event, then loads req_prod). Were both loads allowed to pass the stores, each
    // side could miss the other: it would sleep and we would not ring.
    return passesEvent(previous, producer, Atomics.load(this.words, REQ_EVENT));
  }

  /**
   * Responses ready to be read, or {@link RING_BROKEN} when the back end's producer cannot be
   * true. The producer is read once; use the returned count for the whole batch.
   */
  pendingResponses(): number {
    // An acquire: slots read afterwards are at least as new as this index.
    const pending = ringDistance(this.nextResponse, Atomics.load(this.words, RSP_PROD));
    // There can be no more responses than published requests. An index that ran backwards appears
    // as a distance close to 2^32 and fails the same test.
    return pending > ringDistance(this.nextResponse, this.publishedRequests)
      ? RING_BROKEN
      : pending;
  }

  /**
   * Byte offset in {@link view} of the `position`-th pending response, from 0. The back end can
   * change it while we look: decode it once and use only the copy.
   */
  responseOffset(position: number): number {
    return RING_HEADER_BYTES + ((this.nextResponse + position) & this.mask) * this.slotBytes;
  }

  /**
   * Gives the slots of the first `count` pending responses back.
   *
   * @throws RangeError for more than there are requests in flight.
   */
  consume(count: number): void {
    if (count > ringDistance(this.nextResponse, this.publishedRequests)) {
      throw new RangeError('More responses were consumed than requests are in flight.');
    }
    this.nextResponse = ringAdvance(this.nextResponse, count);
  }

  /**
   * The last look before sleeping, after everything pending was consumed: asks to be woken by the
   * next response and returns true when one came meanwhile (then go round again, do not sleep).
   *
   * A broken producer also gives true, and {@link pendingResponses} then tells.
   */
  finalCheck(): boolean {
    const consumed = this.nextResponse;
    if (Atomics.load(this.words, RSP_PROD) !== consumed) {
      return true;
    }
    Atomics.store(this.words, RSP_EVENT, ringAdvance(consumed, 1));
    // Lost wake-up otherwise: a response published between the load above and this store was
    // tested by the back end against the old rsp_event, so it did not ring, and we would sleep on
    // it. The second load comes after the store in the one order of all atomics: either it sees
    // that response, or the back end's test sees the new rsp_event and rings.
    return Atomics.load(this.words, RSP_PROD) !== consumed;
  }
}

/** The back end: consumes requests, produces responses. Owned by one thread. */
export class BackRing {
  readonly view: DataView<ArrayBufferLike>;
  readonly slotCount: number;
  private readonly words: Int32Array<ArrayBufferLike>;
  private readonly slotBytes: number;
  private readonly mask: number;
  /** rsp_prod_pvt: the next response to fill. */
  private nextResponse: number;
  /** What we last stored to rsp_prod. */
  private publishedResponses: number;
  /** req_cons: the next request to read. */
  private nextRequest: number;

  private constructor(area: RingArea, startIndex: number) {
    this.view = area.view;
    this.words = signedHeader(area);
    this.slotCount = area.slotCount;
    this.slotBytes = area.slotBytes;
    this.mask = area.slotCount - 1;
    this.nextResponse = startIndex | 0;
    this.publishedResponses = startIndex | 0;
    this.nextRequest = startIndex | 0;
  }

  /**
   * Takes the ring that a front end initialised. Like BACK_RING_ATTACH of Linux it begins at
   * rsp_prod, so that requests which an earlier back end did not answer are served again.
   */
  static attach(area: RingArea): BackRing {
    return new BackRing(area, Atomics.load(area.words, RSP_PROD));
  }

  /** Requests consumed and not yet answered, published or not. */
  unanswered(): number {
    return ringDistance(this.nextResponse, this.nextRequest);
  }

  /** Responses filled and not yet published. */
  unpublished(): number {
    return ringDistance(this.publishedResponses, this.nextResponse);
  }

  /**
   * Requests ready to be read, or {@link RING_BROKEN} when the front end's producer is more than a
   * ring ahead of the last response: Linux stops serving such a ring for ever.
   */
  pendingRequests(): number {
    // An acquire: slots read afterwards are at least as new as this index.
    const producer = Atomics.load(this.words, REQ_PROD);
    if (ringDistance(this.nextResponse, producer) > this.slotCount) {
      return RING_BROKEN;
    }
    // A producer that ran back behind the requests already consumed wraps to a huge distance.
    const pending = ringDistance(this.nextRequest, producer);
    return pending > this.slotCount ? RING_BROKEN : pending;
  }

  /**
   * Byte offset in {@link view} of the `position`-th pending request, from 0. The front end can
   * change it while we look, and a response may overwrite it once it is consumed: decode it once.
   */
  requestOffset(position: number): number {
    return RING_HEADER_BYTES + ((this.nextRequest + position) & this.mask) * this.slotBytes;
  }

  /**
   * Marks the first `count` pending requests as taken.
   *
   * @throws RangeError when that would leave more than a ring of them unanswered.
   */
  consume(count: number): void {
    if (ringDistance(this.nextResponse, this.nextRequest) + count > this.slotCount) {
      throw new RangeError('More requests were consumed than the ring has slots.');
    }
    this.nextRequest = ringAdvance(this.nextRequest, count);
  }

  /**
   * Takes the next response slot and returns its byte offset in {@link view}.
   *
   * @throws RangeError when every consumed request has its response already.
   */
  reserveSlot(): number {
    const index = this.nextResponse;
    // The slot of a request that was not consumed still holds that request.
    if (index === this.nextRequest) {
      throw new RangeError('A response was started without an unanswered request.');
    }
    this.nextResponse = ringAdvance(index, 1);
    return RING_HEADER_BYTES + (index & this.mask) * this.slotBytes;
  }

  /**
   * Shows the filled responses to the front end. Returns whether it must be notified; false when
   * nothing was filled. The ordering is that of {@link FrontRing.publish}.
   */
  publish(): boolean {
    const previous = this.publishedResponses;
    const producer = this.nextResponse;
    if (previous === producer) {
      return false;
    }
    this.publishedResponses = producer;
    Atomics.store(this.words, RSP_PROD, producer);
    return passesEvent(previous, producer, Atomics.load(this.words, RSP_EVENT));
  }

  /**
   * The last look before sleeping, after everything pending was consumed: asks to be woken by the
   * next request and returns true when one came meanwhile. The ordering, and the wake-up that
   * would be lost without the second look, are those of {@link FrontRing.finalCheck}.
   */
  finalCheck(): boolean {
    const consumed = this.nextRequest;
    if (Atomics.load(this.words, REQ_PROD) !== consumed) {
      return true;
    }
    Atomics.store(this.words, REQ_EVENT, ringAdvance(consumed, 1));
    return Atomics.load(this.words, REQ_PROD) !== consumed;
  }
}
