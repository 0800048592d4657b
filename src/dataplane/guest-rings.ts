/**
 * Lanes that share our ring, since the backend has given them none. Each of them has a ring of its
 * own in this process, of which we are the other end: its requests go to the backend as they are,
 * but for the id, and the answers go back. So a guest knows nothing of it: grants hold for every
 * ring of the device, and it keeps its clients, its pages and its requests, also for the time when
 * the backend offers it a ring again.
 *
 * What a guest has asked is its own to ask again when the backend is lost: every lane is given a
 * new ring then, and what we had passed on is forgotten.
 */

import {
  BackRing,
  type BlkifAbi,
  blkifLayout,
  createRingArea,
  encodeResponse,
} from '../blkif/index.ts';
import { drainEventFd, PAGE_SIZE, signalEventFd, viewMemory } from '../sys/index.ts';
import type { Part } from './part.ts';
import type { RingRequests } from './ring-requests.ts';

/** A ring in this process, as plain data. */
export interface GuestRing {
  /** Of its pages, whose header is initialised. */
  readonly address: number;
  readonly pageCount: number;
  readonly abi: BlkifAbi;
  /** An eventfd that wakes the guest. */
  readonly guestFd: number;
}

/** The guests of one lane. */
export interface GuestList {
  /** An eventfd with which all of them wake the lane. */
  readonly hostFd: number;
  readonly rings: readonly GuestRing[];
}

export class GuestRings {
  readonly hostFd: number;
  readonly #ring: RingRequests;
  readonly #list: GuestList;
  readonly #rings: readonly BackRing[];
  /** Who is looked at first: the one behind whoever was served first the last time. */
  #first = 0;

  constructor(list: GuestList, ring: RingRequests) {
    this.hostFd = list.hostFd;
    this.#list = list;
    this.#ring = ring;
    this.#rings = list.rings.map(({ address, pageCount, abi }) =>
      BackRing.attach(
        createRingArea({
          buffer: viewMemory(address, pageCount * PAGE_SIZE),
          offsetBytes: 0,
          ringPageCount: pageCount,
          abi,
        }),
      ),
    );
  }

  /** Puts what guests ask on the ring, as far as there is room. Returns how many requests. */
  relay(): number {
    const count = this.#rings.length;
    let relayed = 0;
    const first = this.#first;
    for (let turn = 0; turn < count; turn++) {
      const guest = (first + turn) % count;
      const ring = this.#rings[guest] as BackRing;
      let pending = ring.pendingRequests();
      while (pending > 0 && this.#ring.canRelay) {
        // Only who was given something comes last next time: with a turn that gives nobody anything
        // in between, the same one would be first each time.
        if (relayed === 0) this.#first = (guest + 1) % count;
        this.#ring.relay(ring.view, ring.requestOffset(0), guest);
        ring.consume(1);
        pending -= 1;
        relayed += 1;
      }
    }
    return relayed;
  }

  /** The backend has answered a request that {@link relay} has made. */
  answered(part: Part): void {
    const ring = this.#rings[part.guest];
    const abi = this.#list.rings[part.guest]?.abi;
    if (ring === undefined || abi === undefined) return;
    const { guestId, blkifOp, status } = part;
    encodeResponse(ring.view, ring.reserveSlot(), blkifLayout(abi), guestId, blkifOp, status);
  }

  /** Shows the answers to the guests. */
  publish(): void {
    for (let guest = 0; guest < this.#rings.length; guest++) {
      if (this.#rings[guest]?.publish() !== true) continue;
      signalEventFd(this.#list.rings[guest]?.guestFd ?? -1);
    }
  }

  /** Takes the signal of those that have asked for something. */
  consumeEvent(): void {
    drainEventFd(this.hostFd);
  }

  /**
   * Before sleeping: whether requests came that there is room for; asks to be woken otherwise.
   * Without room, it is an answer of the backend that wakes us.
   */
  finalCheck(): boolean {
    if (!this.#ring.canRelay) return false;
    let isMore = false;
    for (const ring of this.#rings) isMore = ring.finalCheck() || isMore;
    return isMore;
  }
}
