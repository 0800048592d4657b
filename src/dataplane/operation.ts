/**
 * One NBD request from acceptance to reply. All operations of a lane exist from the start and are
 * reused; their fields keep their number kinds (small integers stay small integers, doubles stay
 * doubles), so that filling one in allocates nothing.
 *
 * The bytes of a request are looked at on the grid of the disk's sectors: `firstByte` is the offset
 * rounded down, `gridBytes` the length of the whole sectors covered, `skewBytes` what lies in front
 * of the client's first byte. Positions within an operation (`allocatedBytes`, `filledBytes`,
 * `issuedBytes`) count from `firstByte`; page n of its list holds bytes n*4096 onwards.
 */

import { NO_PAGE } from './page-pool.ts';

/** Who asked, and is to be answered. The engine only hands it back. */
export interface Requester {
  /**
   * The reply of `operation` is ready to be sent. Where `isMore` says that it is not all of it, the
   * engine wants to hear when it has left: see {@link Engine.readOn}.
   */
  replyReady(operation: Operation): void;
  /** `operation`, a write, has room for payload now. */
  payloadWanted(operation: Operation): void;
  /** `operation`, a write, has failed: what is missing of its payload is to be thrown away. */
  payloadRefused(operation: Operation, missingBytes: number): void;
}

/** What an operation does next; page-allocation.ts and issue.ts branch on it. */
export const Stage = {
  /** Reads data into its pages, or piece by piece into memory of its own. */
  READ: 0,
  /** Reads the sectors at the ends of a ragged range. */
  EDGES: 1,
  /** Writes payload, window by window. */
  WRITE: 2,
  /** Writes back the patched edges of a ragged zeroing. */
  ZERO_EDGES: 3,
  /** Writes zeroes, slice by slice. */
  ZEROES: 4,
  DISCARD: 5,
  /** Nothing is left to ask for; waits for its parts. */
  DRAIN: 6,
} as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

/** Which queue of the engine an operation waits in. */
export const Queue = {
  NONE: 0,
  PAGES: 1,
  SLOTS: 2,
  RANGE: 3,
  ZEROES: 4,
  FLUSH: 5,
  SEND: 6,
  SPILL: 7,
} as const;
export type Queue = (typeof Queue)[keyof typeof Queue];

// Field values that tell V8 which kind of number will follow.
const A_DOUBLE = 0.5;

export class Operation {
  /** Position in the lane's table. */
  readonly index: number;
  /** Undefined once the client has gone: the operation runs to its end and is not answered. */
  requester: Requester | undefined = undefined;
  /** The next one in the queue or list that this operation is in; it is in one at most. */
  next: Operation | undefined = undefined;
  queue: Queue = Queue.NONE;
  stage: Stage = Stage.DRAIN;
  isActive = false;

  command = 0;
  isFua = false;
  /** The two halves of the client's cookie, as signed integers: they are copied, never compared. */
  cookieHigh = 0;
  cookieLow = 0;
  /** The halves of the offset as it came, which an extended reply repeats whatever it is. */
  offsetHigh = 0;
  offsetLow = 0;
  offset: number = A_DOUBLE;
  lengthBytes: number = A_DOUBLE;
  /** What {@link LaneCore.nowUs} was when the request came. */
  startedUs = 0;
  /** NBD error number of the reply; the first failed part decides. */
  errno = 0;

  firstByte: number = A_DOUBLE;
  gridBytes: number = A_DOUBLE;
  skewBytes = 0;
  allocatedBytes: number = A_DOUBLE;
  filledBytes: number = A_DOUBLE;
  issuedBytes: number = A_DOUBLE;
  partsInFlight = 0;

  firstPage: number = NO_PAGE;
  lastPage: number = NO_PAGE;
  pageCount = 0;
  /** A read's next page to be asked for. */
  issuePage: number = NO_PAGE;
  /** A write's page that payload goes into next. */
  fillPage: number = NO_PAGE;
  /** A write that waits for slots has payload for another window. */
  wantsRoom = false;

  /** A read that may be answered piece by piece, and one that is, since it is large. */
  mayFragment = false;
  isFragmented = false;
  /** Its client asks one thing at a time. */
  isAlone = false;
  /** The reply is of a first piece, and not the last of the operation. */
  isMore = false;

  /** Has a first or last sector that the client covers in part only. */
  isRagged = false;
  /** Is in the range lock's table, and holds its range there or waits for it. */
  rangeEntered = false;
  holdsRange = false;
  /** Pages for the first and last sector as they are on disk, while a ragged write is built. */
  headPage: number = NO_PAGE;
  tailPage: number = NO_PAGE;

  /** Memory that holds a read too large for the pool until it is sent; 0 when there is none. */
  spillAddress: number = A_DOUBLE;
  spillBytes: number = A_DOUBLE;

  /** What it counts for while it is in progress: in its client's limit, and in the lane's. */
  isShared = false;
  clientBytes: number = A_DOUBLE;
  laneBytes: number = A_DOUBLE;

  /** Bytes from `offset` on of which the metadata contexts know that they may be changing. */
  trackedBytes: number = A_DOUBLE;
  /** A BLOCK_STATUS that wants to hear of one extent alone. */
  isOneExtent = false;

  /** What its reply consists of: a header in the lane's header area, and data of a read. */
  headerBytes = 0;
  dataBytes = 0;

  constructor(index: number) {
    this.index = index;
    this.reset();
  }

  /** Makes it ready for the next request. Pages must have been given back. */
  reset(): void {
    this.requester = undefined;
    this.next = undefined;
    this.queue = Queue.NONE;
    this.stage = Stage.DRAIN;
    this.isActive = false;
    this.isFua = false;
    this.errno = 0;
    this.allocatedBytes = 0;
    this.filledBytes = 0;
    this.issuedBytes = 0;
    this.skewBytes = 0;
    this.partsInFlight = 0;
    this.firstPage = NO_PAGE;
    this.lastPage = NO_PAGE;
    this.pageCount = 0;
    this.issuePage = NO_PAGE;
    this.fillPage = NO_PAGE;
    this.wantsRoom = false;
    this.mayFragment = false;
    this.isFragmented = false;
    this.isAlone = false;
    this.isMore = false;
    this.isRagged = false;
    this.rangeEntered = false;
    this.holdsRange = false;
    this.headPage = NO_PAGE;
    this.tailPage = NO_PAGE;
    this.spillAddress = 0;
    this.spillBytes = 0;
    this.isShared = false;
    this.clientBytes = 0;
    this.laneBytes = 0;
    this.trackedBytes = 0;
    this.isOneExtent = false;
  }
}

/** A queue of operations in order of arrival, linked through the operations themselves. */
export class OperationQueue {
  head: Operation | undefined = undefined;
  #tail: Operation | undefined = undefined;
  readonly #queue: Queue;

  constructor(queue: Queue) {
    this.#queue = queue;
  }

  get isEmpty(): boolean {
    return this.head === undefined;
  }

  push(operation: Operation): void {
    operation.queue = this.#queue;
    operation.next = undefined;
    if (this.#tail === undefined) this.head = operation;
    else this.#tail.next = operation;
    this.#tail = operation;
  }

  shift(): Operation | undefined {
    const operation = this.head;
    if (operation === undefined) return undefined;
    this.head = operation.next;
    if (this.head === undefined) this.#tail = undefined;
    operation.next = undefined;
    operation.queue = Queue.NONE;
    return operation;
  }

  /** Takes out one that may stand anywhere in the queue, if it is there. */
  remove(operation: Operation): void {
    let before: Operation | undefined;
    for (let at = this.head; at !== undefined; at = at.next) {
      if (at !== operation) {
        before = at;
        continue;
      }
      if (before === undefined) this.head = at.next;
      else before.next = at.next;
      if (this.#tail === at) this.#tail = before;
      at.next = undefined;
      at.queue = Queue.NONE;
      return;
    }
  }
}
