/**
 * Flushes that are shared. One is on the ring at a time; whoever wants a flush meanwhile waits for
 * the next, which covers them all. Everyone who waits has seen its own writes completed, so one
 * flush that starts afterwards does for all; whoever comes later may have completed a write after
 * that flush was cut, and must not be counted in.
 */

import { NbdErrno } from 'nbd-server-ts/protocol';
import { BlkifStatus } from '../blkif/index.ts';
import { type Operation, OperationQueue, Queue } from './operation.ts';
import type { RingRequests } from './ring-requests.ts';

export class SharedFlush {
  readonly #ring: RingRequests;
  readonly #finish: (operation: Operation) => void;
  /** Those that wait for the next flush, and those that the one on the ring covers. */
  #waiting = new OperationQueue(Queue.FLUSH);
  #covered = new OperationQueue(Queue.FLUSH);
  #isOnRing = false;
  /** The backend has said that it takes no flush; empty barriers take its place. */
  #usesBarriers = false;

  constructor(ring: RingRequests, finish: (operation: Operation) => void) {
    this.#ring = ring;
    this.#finish = finish;
  }

  want(operation: Operation): void {
    this.#waiting.push(operation);
    this.pump();
  }

  /** Starts the next flush, if somebody waits for it and the ring has room. */
  pump(): void {
    if (this.#isOnRing || this.#waiting.isEmpty || !this.#ring.hasRoom) return;
    const covered = this.#waiting;
    this.#waiting = this.#covered;
    this.#covered = covered;
    this.#isOnRing = true;
    this.#ring.flush();
  }

  /** The flush on the ring was answered. Returns whether it has failed. */
  answered(status: number, canFallBackToBarrier: boolean): boolean {
    this.#isOnRing = false;
    const isUnsupported = status === BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
    if (isUnsupported && canFallBackToBarrier && !this.#usesBarriers) {
      this.#fallBack();
      return false;
    }
    const errno = status === BlkifStatus.BLKIF_RSP_OKAY ? 0 : NbdErrno.EIO;
    for (;;) {
      const operation = this.#covered.shift();
      if (operation === undefined) break;
      if (operation.errno === 0) operation.errno = errno;
      this.#finish(operation);
    }
    this.pump();
    return errno !== 0;
  }

  /** A new connection to the backend: what it takes is to be found out again. */
  reset(): void {
    this.#usesBarriers = false;
  }

  remove(operation: Operation): void {
    this.#waiting.remove(operation);
    this.#covered.remove(operation);
  }

  /** Those who wait were promised a flush: they get the next best kind, before later ones. */
  #fallBack(): void {
    this.#usesBarriers = true;
    this.#ring.flushWithBarriers();
    for (;;) {
      const later = this.#waiting.shift();
      if (later === undefined) break;
      this.#covered.push(later);
    }
    const all = this.#covered;
    this.#covered = this.#waiting;
    this.#waiting = all;
    this.pump();
  }
}
