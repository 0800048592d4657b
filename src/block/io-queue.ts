/**
 * Everything that callers wait for, and the ring that it is asked on when there is one.
 *
 * Transfers are cut into ring requests as slots and pages come free, in the order in which they
 * were started. A request that a lost ring left unanswered goes back to the front of the queue and
 * is asked again on the next: its bytes are still in the buffers, which belong to the operation
 * until it ends. Reads and writes may be repeated, and the order of what is asked stays as it was.
 */

import { BlkifStatus } from '../blkif/index.ts';
import type { BlockError } from './block-error.ts';
import type { Answer, BlockRing, FlushRequest } from './block-ring.ts';
import { DataRequest, type PageSources } from './data-request.ts';
import type { Transfer } from './transfer.ts';

/** Bytes of a transfer that were not asked for yet, or have to be asked for again. */
interface Range {
  readonly transfer: Transfer;
  at: number;
  readonly end: number;
}

/** A connection to ask on. */
export interface IoConnection extends PageSources {
  readonly ring: BlockRing;
  /** How writes are made stable: an operation of the ring, or nothing when none is needed. */
  readonly flush: 'flush-cache' | 'barrier' | 'none';
  /** Barriers are offered as well, should the flush turn out not to work. */
  readonly canFallBackToBarrier: boolean;
  /** Rings the back end. */
  readonly notify: () => void;
}

const BUFFERS_GONE: BlockError = {
  code: 'Failed',
  message: 'a buffer was transferred, or changed its size, before the operation ended',
};

export class IoQueue {
  readonly #waiting: (Range | FlushRequest)[] = [];
  /** Requests of a lost ring, whose pages the back end may still use. */
  #lost: DataRequest[] = [];
  #connection: IoConnection | undefined;
  /** The back end wants to close: what is on the ring is its last. */
  #isHeld = false;
  /** It has said that it takes no flush, and is given empty barriers. */
  #usesBarriers = false;
  /** Why everything fails from now on. */
  #failure: BlockError | undefined;
  #isDraining = false;
  #isPumpDue = false;
  #onQuiet: (() => void)[] = [];
  #onIdle: (() => void)[] = [];

  /** Why the device serves nobody any more; undefined while it does. */
  get failure(): BlockError | undefined {
    return this.#failure;
  }

  /** Starts a transfer that was checked. */
  start(transfer: Transfer): void {
    transfer.begin();
    if (this.#refusal !== undefined) transfer.fail(this.#refusal);
    if (transfer.hasFailed || transfer.lengthBytes === 0) {
      transfer.end();
      return;
    }
    this.#waiting.push({ transfer, at: 0, end: transfer.lengthBytes });
    this.#pumpSoon();
  }

  /** Starts a flush of what was answered before. */
  flush(request: FlushRequest): void {
    if (this.#refusal !== undefined) {
      request.settle({ ok: false, error: this.#refusal });
      return;
    }
    this.#waiting.push(request);
    this.#pumpSoon();
  }

  /** Goes on with a new connection; the back end has finished with the one before. */
  attach(connection: IoConnection): void {
    for (const request of this.#lost.splice(0)) request.release();
    this.#connection = connection;
    this.#isHeld = false;
    this.#usesBarriers = false;
    this.#pump();
  }

  /** Asks for nothing more; resolves when everything on the ring was answered. */
  hold(): Promise<void> {
    this.#isHeld = true;
    return new Promise((resolve) => {
      this.#onQuiet.push(resolve);
      this.#tell();
    });
  }

  /** The connection is over: what was not answered waits for the next, before what is new. */
  detach(): void {
    const unanswered = this.#connection?.ring.unanswered() ?? [];
    this.#connection = undefined;
    const again = unanswered.map((request) => {
      if (!(request instanceof DataRequest)) return request;
      this.#lost.push(request);
      return { transfer: request.transfer, at: request.at, end: request.end };
    });
    this.#waiting.unshift(...again);
    this.#tell();
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /**
   * Ends everything that is in progress, and all that is started from now on. Pages that are on the
   * ring are not used again.
   */
  stop(error: BlockError): void {
    this.#failure ??= error;
    this.detach();
    for (const work of this.#waiting.splice(0)) {
      if (!('transfer' in work)) {
        work.settle({ ok: false, error });
        continue;
      }
      work.transfer.fail(error);
      work.transfer.end();
    }
    this.#tell();
  }

  /**
   * Refuses what is started from now on. Resolves when nothing is in progress any more, or when the
   * connection is over.
   */
  drain(): Promise<void> {
    this.#isDraining = true;
    return new Promise((resolve) => {
      this.#onIdle.push(resolve);
      this.#tell();
    });
  }

  /**
   * Takes what the back end has answered, and asks for more. Returns whether more answers came
   * meanwhile; otherwise the back end will ring when there are any.
   *
   * @throws RingFault
   */
  turn(): boolean {
    const connection = this.#connection;
    if (connection === undefined) return false;
    for (const answer of connection.ring.collect()) this.#answered(answer, connection);
    this.#pump();
    this.#tell();
    return connection.ring.finalCheck();
  }

  get #refusal(): BlockError | undefined {
    return this.#failure ?? (this.#isDraining ? { code: 'Disconnected' } : undefined);
  }

  /** What is started in one go is shown to the back end in one go. */
  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    queueMicrotask(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#isHeld) return;
    while (this.#waiting[0] !== undefined && connection.ring.hasRoom) {
      const work = this.#waiting[0];
      if (!('transfer' in work)) {
        this.#waiting.shift();
        this.#askFlush(work, connection);
      } else if (!work.transfer.hasFailed && work.at < work.end) {
        if (!this.#askRange(work, connection)) break;
      } else {
        this.#waiting.shift();
        work.transfer.end();
      }
    }
    if (connection.ring.publish()) connection.notify();
    this.#tell();
  }

  #askFlush(request: FlushRequest, { flush, ring }: IoConnection): void {
    if (flush === 'none') request.settle({ ok: true });
    else ring.flush(request, flush === 'barrier' || this.#usesBarriers);
  }

  /** Asks for the next part of a range; false when there is no page for it now. */
  #askRange(range: Range, connection: IoConnection): boolean {
    const { transfer, at, end } = range;
    const { ring, pages, sectorBytes } = connection;
    if (!transfer.fits(sectorBytes)) {
      transfer.fail({
        code: 'Failed',
        message: `the back end came back with sectors of ${sectorBytes} bytes`,
      });
      return true;
    }
    // A long list of segments needs a page of its own, beside at least one for the bytes.
    const segmentsMax = ring.segmentsMax(pages.freeCount >= 2);
    const request = DataRequest.plan(transfer, at, end, segmentsMax, connection);
    if (request === undefined) return false;
    if (transfer.isWrite && !request.fill()) {
      request.release();
      transfer.fail(BUFFERS_GONE);
      return true;
    }
    transfer.begin();
    ring.transfer(request, pages);
    range.at = request.end;
    return true;
  }

  #answered({ request, status }: Answer, connection: IoConnection): void {
    if (!(request instanceof DataRequest)) {
      this.#flushAnswered(request, status, connection);
      return;
    }
    const { transfer } = request;
    if (status !== BlkifStatus.BLKIF_RSP_OKAY) transfer.fail(errorOf(status));
    else if (!transfer.isWrite && !request.deliver()) transfer.fail(BUFFERS_GONE);
    request.release();
    transfer.end();
  }

  #flushAnswered(request: FlushRequest, status: number, connection: IoConnection): void {
    const isUnsupported = status === BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
    if (isUnsupported && connection.canFallBackToBarrier && !this.#usesBarriers) {
      this.#usesBarriers = true;
      this.#waiting.unshift(request);
    } else if (status === BlkifStatus.BLKIF_RSP_OKAY) {
      request.settle({ ok: true });
    } else {
      request.settle({ ok: false, error: errorOf(status) });
    }
  }

  #tell(): void {
    const isQuiet = (this.#connection?.ring.inFlight ?? 0) === 0;
    if (!isQuiet) return;
    for (const resolve of this.#onQuiet.splice(0)) resolve();
    if (this.#waiting.length > 0) return;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }
}

function errorOf(status: number): BlockError {
  if (status === BlkifStatus.BLKIF_RSP_EOPNOTSUPP) return { code: 'Unimplemented' };
  return { code: 'Failed', message: 'the back end answered with an I/O error' };
}
