/**
 * Whole sectors of zeroes, written from pages that are always zero: blkif has no operation for it.
 * One slice is on the ring at a time, so that a request for gigabytes leaves others their turns,
 * and so that no page is in two ring requests at once, which persistent grants forbid.
 */

import { NbdErrno } from 'nbd-server-ts/protocol';
import { PAGE_SIZE } from '../sys/index.ts';
import { type Operation, OperationQueue, Queue, Stage } from './operation.ts';
import type { PagePool } from './page-pool.ts';
import { hasRaggedEnd } from './ragged-ends.ts';
import type { RingRequests } from './ring-requests.ts';

export class ZeroWriter {
  readonly #ring: RingRequests;
  readonly #zeroPool: PagePool;
  /** Nothing of the operation is left to write; its last slice may still be on the ring. */
  readonly #ended: (operation: Operation) => void;
  readonly #queue = new OperationQueue(Queue.ZEROES);
  #isOnRing = false;

  constructor(ring: RingRequests, zeroPool: PagePool, ended: (operation: Operation) => void) {
    this.#ring = ring;
    this.#zeroPool = zeroPool;
    this.#ended = ended;
    for (let page = 1; page < zeroPool.pageCount; page++) zeroPool.link(page - 1, page);
  }

  want(operation: Operation, sectorBytes: number): void {
    operation.stage = Stage.ZEROES;
    this.#queue.push(operation);
    this.pump(sectorBytes);
  }

  /** The slice on the ring was answered. */
  sliceDone(): void {
    this.#isOnRing = false;
  }

  remove(operation: Operation): void {
    this.#queue.remove(operation);
  }

  pump(sectorBytes: number): void {
    while (!this.#isOnRing) {
      const operation = this.#queue.head;
      if (operation === undefined) return;
      // A sector that is covered in part was written by itself, before.
      const endBytes =
        operation.gridBytes - (hasRaggedEnd(operation, sectorBytes) ? sectorBytes : 0);
      const isOver = operation.errno !== 0 || operation.requester === undefined;
      if (isOver) {
        // A slice failed, or the client has gone: the rest need not be written, and what is not
        // done is no success.
        if (operation.errno === 0) operation.errno = NbdErrno.EIO;
        this.#end(operation);
        this.#ended(operation);
        continue;
      }
      const pages = Math.min(
        Math.ceil((endBytes - operation.issuedBytes) / PAGE_SIZE),
        this.#zeroPool.pageCount,
        this.#ring.maxSegments,
      );
      if (!this.#ring.hasRoomFor(pages)) return;
      const lengthBytes = Math.min(endBytes - operation.issuedBytes, pages * PAGE_SIZE);
      this.#ring.zeroes(operation, pages, lengthBytes);
      this.#isOnRing = true;
      operation.issuedBytes += lengthBytes;
      if (operation.issuedBytes >= endBytes) this.#end(operation);
    }
  }

  #end(operation: Operation): void {
    this.#queue.remove(operation);
    operation.issuedBytes = operation.gridBytes;
    operation.stage = Stage.DRAIN;
  }
}
