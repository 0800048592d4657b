/** One request on the ring, as its sender remembers it. Reused: its fields keep their kinds. */

import type { Operation } from './operation.ts';
import { NO_PAGE } from './page-pool.ts';

/** What a request on the ring is for. */
export const PartRole = {
  DATA: 0,
  EDGE: 1,
  ZEROES: 2,
  FLUSH: 3,
  DISCARD: 4,
  /** For another lane: see guest-rings.ts. */
  RELAYED: 5,
} as const;
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
  /** Of a relayed one: for which guest, and under which id it was asked. */
  guest = 0;
  guestId = 0;
  /** What comes next in the same request on the ring: see {@link RingRequests.transfer}. */
  joined: Part | undefined = undefined;
  /** It shares the request of another part, and no response may name it. */
  isJoined = false;
  /** Of the response. */
  status = 0;
  /** Counts requests, for the order of a replay. */
  order = 0.5;

  constructor(id: number) {
    this.id = id;
    this.firstByte = 0;
    this.order = 0;
  }

  /**
   * The same request in a record of its own, for when this one is used for something else. Made
   * only of what has failed.
   */
  copy(): Part {
    const copy = Object.assign(new Part(this.id), this);
    copy.joined = undefined;
    copy.isJoined = false;
    return copy;
  }
}
