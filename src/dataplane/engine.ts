/**
 * The engine turns NBD requests into ring requests and ring responses into replies. It knows no
 * sockets, threads or clocks: requests are started by whoever owns the connections and answered
 * through {@link Requester}; the ring is memory. So the same code runs in a lane and under the
 * deterministic simulation.
 *
 * How a request moves:
 * - It waits for pages in one queue and for ring slots in another. What waits for a slot lacks
 *   nothing else, and slots come back by themselves, so the second queue always moves on; and
 *   whoever holds pages while waiting for more holds so few that the others can finish. That is why
 *   the queues cannot lock each other up.
 * - A read takes all its pages at once and keeps them until its reply has left: the reply is
 *   written to the socket from those pages. A read too large for that is answered piece by piece,
 *   each like a read of its own; for a client that takes no pieces it is gathered in memory first.
 * - A write takes pages for a window of its payload, is filled by the connection, and gives each
 *   page back when the backend has taken it.
 * - Sectors that a client covers in part are read, patched and written under a range lock, so that
 *   two such writes never lose each other's bytes.
 * - A flush covers what was answered before it came. Flushes, and writes that wait for one (FUA),
 *   share: one is on the ring at a time, and those that come meanwhile share the next.
 */

import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import { BlkifStatus } from '../blkif/index.ts';
import { countFailure } from './backend-failures.ts';
import { Counter, type Counters } from './counters.ts';
import { FragmentedReads } from './fragmented-read.ts';
import type { GuestRings } from './guest-rings.ts';
import { issue } from './issue.ts';
import type { DiskShape } from './lane-config.ts';
import type { LaneContexts } from './lane-contexts.ts';
import { type Operation, OperationQueue, Queue, type Requester, Stage } from './operation.ts';
import { copyFromPages, forgetPages, giveBackEdges, giveBackPages } from './operation-pages.ts';
import { OperationTable } from './operation-table.ts';
import { PageAllocation } from './page-allocation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';
import { type Part, PartRole } from './part.ts';
import {
  copyPayload,
  issuableBytes,
  missingBytes,
  notePayload,
  parkPayload,
  roomBytes,
} from './payload.ts';
import { patchHead, patchTail, setDiscardRange, setGrid, zeroEdges } from './ragged-ends.ts';
import { RangeLock, type SharedRanges } from './range-lock.ts';
import type { RingRequests } from './ring-requests.ts';
import { SharedFlush } from './shared-flush.ts';
import { SpilledReads } from './spilled-reads.ts';
import { ZeroWriter } from './zero-writer.ts';

export interface EngineConfig {
  readonly disk: DiskShape;
  /** Writes in progress, shared with the other lanes; it also says how many operations we have. */
  readonly ranges: SharedRanges;
  readonly laneIndex: number;
  /** Most memory for reads that do not fit the pool. */
  readonly spillLimitBytes: number;
  /** Most operations that clients have beyond their first each; by default as many as there are. */
  readonly sharedMax?: number;
  /** Most bytes of reads and writes in progress at once; without a limit by default. */
  readonly bytesMax?: number;
}

/** The parts that an engine works with. */
export interface EngineParts {
  readonly ring: RingRequests;
  readonly pool: PagePool;
  /** Granted pages that stay zero, the source of WRITE_ZEROES. */
  readonly zeroPool: PagePool;
  readonly counters: Counters;
  /** Told of every change of the disk. */
  readonly contexts: LaneContexts;
}

/** Ragged writes at work at once; each holds up to two pages while it waits for more. */
const RAGGED_MAX = 16;

export class Engine {
  #disk: DiskShape;
  readonly #ring: RingRequests;
  readonly #pool: PagePool;
  readonly #counters: Counters;
  readonly #contexts: LaneContexts;
  readonly #table: OperationTable;
  readonly #rangeLock: RangeLock;
  readonly #spilled: SpilledReads;
  readonly #flushes: SharedFlush;
  readonly #zeroes: ZeroWriter;
  readonly #pageQueue = new OperationQueue(Queue.PAGES);
  readonly #slotQueue = new OperationQueue(Queue.SLOTS);
  readonly #fragments: FragmentedReads;
  readonly #pages: PageAllocation;
  #isBroken = false;
  /** Lanes that share our ring, and whether their turn comes before ours. */
  #guests: GuestRings | undefined;
  #areGuestsFirst = false;

  constructor(config: EngineConfig, parts: EngineParts) {
    this.#disk = config.disk;
    this.#ring = parts.ring;
    this.#pool = parts.pool;
    this.#counters = parts.counters;
    this.#contexts = parts.contexts;
    this.#table = new OperationTable(
      config.ranges.operationCount,
      config.sharedMax,
      config.bytesMax,
    );
    const raggedMax = Math.min(RAGGED_MAX, Math.max(1, parts.pool.pageCount >>> 2));
    this.#rangeLock = new RangeLock(config.ranges, config.laneIndex, raggedMax);
    this.#spilled = new SpilledReads(config.spillLimitBytes, (operation) =>
      this.#wantPages(operation),
    );
    this.#fragments = new FragmentedReads(parts.pool);
    this.#pages = new PageAllocation(parts.pool, parts.ring, this.#fragments);
    this.#flushes = new SharedFlush(this.#ring, (operation) => this.#finish(operation));
    this.#zeroes = new ZeroWriter(this.#ring, parts.zeroPool, (operation) => {
      if (operation.partsInFlight === 0) this.#settle(operation);
    });
  }

  /** Whether something may become possible without an event to tell: look again soon. */
  get mustLookAgain(): boolean {
    return this.#rangeLock.waitsForOtherLanes;
  }

  /** Whether a request that counts as `lengthBytes` could be started. */
  hasRoomFor(lengthBytes: number, isOwn: boolean): boolean {
    return this.#table.hasRoomFor(lengthBytes, isOwn);
  }

  /** Whether nothing is in progress. */
  get isIdle(): boolean {
    return this.#table.isIdle;
  }

  /**
   * Takes an operation to be filled in and started, for a request that counts as `lengthBytes`;
   * undefined when there is no room for it now. `isOwn`: its client has no other in progress.
   */
  take(lengthBytes: number = 0, isOwn: boolean = true): Operation | undefined {
    return this.#table.take(lengthBytes, isOwn);
  }

  /** Gives back one whose reply has been sent or which needs none. */
  release(operation: Operation): void {
    giveBackPages(this.#pool, operation);
    this.#spilled.giveBack(operation);
    this.#table.give(operation);
  }

  /**
   * Starts an operation whose command, range, cookie and requester are set. The range must have
   * been checked against the disk; nothing is checked again.
   */
  start(operation: Operation): void {
    operation.isActive = true;
    if (this.#isBroken) {
      this.#refuseBroken(operation);
      return;
    }
    const { sectorBytes } = this.#disk;
    const hasRange = operation.lengthBytes > 0;
    switch (operation.command) {
      case NbdCmd.READ:
        setGrid(operation, sectorBytes);
        operation.stage = Stage.READ;
        if (hasRange) this.#startRead(operation);
        else this.#finish(operation);
        return;
      case NbdCmd.WRITE:
      case NbdCmd.WRITE_ZEROES:
        setGrid(operation, sectorBytes);
        operation.filledBytes = operation.skewBytes;
        if (hasRange) this.#startChange(operation);
        else this.#dataDone(operation);
        return;
      case NbdCmd.TRIM:
        setDiscardRange(operation, this.#disk);
        if (operation.gridBytes > 0) this.#startChange(operation);
        else this.#dataDone(operation);
        return;
      case NbdCmd.FLUSH:
        this.#wantFlush(operation);
        return;
      default:
        this.#finish(operation);
    }
  }

  #startChange(operation: Operation): void {
    this.#contexts.begin(operation);
    if (this.#rangeLock.acquire(operation)) this.#rangeHeld(operation);
  }

  /** Answers an operation without doing anything: a request that was refused. */
  refuse(operation: Operation, errno: number): void {
    operation.isActive = true;
    operation.errno = errno;
    this.#finish(operation);
  }

  /** Takes the pages of an operation whose reply has left, or has been copied. */
  giveBack(operation: Operation): void {
    giveBackPages(this.#pool, operation);
  }

  /**
   * A piece of a read, whose reply said that it is not all of it, has left: the next is read.
   */
  readOn(operation: Operation): void {
    this.giveBack(operation);
    this.#fragments.moveOn(operation);
    operation.isActive = true;
    if (this.#isBroken) this.#refuseBroken(operation);
    else this.#wantPages(operation);
  }

  /** Starts a flush on the lane's own behalf. */
  startFlush(operation: Operation): void {
    operation.command = NbdCmd.FLUSH;
    operation.offset = 0;
    operation.lengthBytes = 0;
    this.start(operation);
  }

  /** All operations of a client that has gone; see {@link abandon}. */
  abandonAll(requester: Requester): void {
    for (const operation of this.#table.all) {
      if (operation.isActive && operation.requester === requester) this.abandon(operation);
    }
  }

  // --- payload of writes

  /**
   * There is payload for a write that has no room: takes pages for it, now or when its turn comes;
   * then the requester hears `payloadWanted`.
   */
  wantRoom(operation: Operation): void {
    if (operation.stage !== Stage.WRITE || operation.queue === Queue.PAGES) return;
    if (operation.queue === Queue.SLOTS) {
      // The window before waits for slots; the next is asked for when that has been sent on.
      operation.wantsRoom = true;
    } else if (roomBytes(operation) === 0 && missingBytes(operation) > 0) {
      this.#wantPages(operation);
    }
  }

  /** Whether a large read waits for memory that others hold. */
  get isShortOfSpill(): boolean {
    return this.#spilled.isShort;
  }

  /** Whether somebody waits for pages. */
  get isStarved(): boolean {
    return !this.#pageQueue.isEmpty;
  }

  /**
   * Takes back what a write holds whose client has fallen silent, because others need it: whole
   * pages are sent on, free ones given back, and the bytes of a page that is filled in part are
   * copied to `parkedAddress`, to be filled in again later. Returns how many bytes that are.
   */
  park(operation: Operation, parkedAddress: number): number {
    const isInWindow = operation.stage === Stage.WRITE && operation.pageCount > 0;
    if (!isInWindow || operation.queue !== Queue.NONE) return 0;
    const parkedBytes = parkPayload(this.#pool, operation, parkedAddress);
    this.#advanceWrite(operation);
    return parkedBytes;
  }

  /** Memory for replies that a client does not take; 0 when there is too much of that already. */
  allocateParking(lengthBytes: number): number {
    return this.#spilled.allocateBlock(lengthBytes);
  }

  /** Gives back what {@link allocateParking} gave for the same length. */
  freeParking(address: number, lengthBytes: number): void {
    this.#spilled.freeBlock(address, lengthBytes);
  }

  /** Copies payload from memory into the window: at most the room it has. */
  fillFrom(operation: Operation, sourceAddress: number, lengthBytes: number): void {
    copyPayload(this.#pool, operation, sourceAddress, lengthBytes);
    this.filled(operation, lengthBytes);
  }

  /** Says that `lengthBytes` of payload were put into the window, from `fillPage` on. */
  filled(operation: Operation, lengthBytes: number): void {
    notePayload(this.#pool, operation, lengthBytes);
    if (operation.isRagged && missingBytes(operation) === 0) {
      patchTail(this.#pool, operation, this.#disk.sectorBytes);
    }
    this.#advanceWrite(operation);
  }

  /**
   * The client of `operation` has gone. What is on the ring is waited for; a write whose payload
   * will never be complete gives back its pages and writes no more.
   */
  abandon(operation: Operation): void {
    operation.requester = undefined;
    if (operation.command !== NbdCmd.WRITE || missingBytes(operation) <= 0) return;
    this.#giveUpWrite(operation, NbdErrno.EIO);
  }

  // --- the ring

  /** Who shares the ring from now on. */
  setGuests(guests: GuestRings | undefined): void {
    this.#guests = guests;
  }

  /** A new connection to the backend may come with other abilities. */
  diskChanged(disk: DiskShape): void {
    this.#disk = disk;
    this.#counters.values[Counter.TRIMS_REFUSED_NOW] = 0;
    this.#flushes.reset();
  }

  /**
   * Takes the responses that the backend has published. Returns how many; -1 when one of them, or
   * the ring itself, cannot be: the backend is broken and the ring must not be used again.
   */
  collect(): number {
    const count = this.#ring.pending();
    for (let i = 0; i < count; i++) {
      const part = this.#ring.takeResponse();
      if (part === undefined) return -1;
      if (part.joined !== undefined && part.status !== BlkifStatus.BLKIF_RSP_OKAY) {
        this.#ring.askApart(part);
      } else {
        this.#answered(part);
      }
    }
    return count;
  }

  /** The request of `first`, and of what has joined it, is done. */
  #answered(first: Part): void {
    let part: Part | undefined = first;
    while (part !== undefined) {
      const next: Part | undefined = part.joined;
      this.#partDone(part);
      this.#ring.freePart(part);
      part = next;
    }
  }

  /** Moves on everything that waited for what has become free. */
  pump(): void {
    this.#ring.replay();
    if (this.#rangeLock.waitsForOtherLanes) this.#wakeRangeWaiters();
    this.#spilled.pump();
    this.#flushes.pump();
    this.#zeroes.pump(this.#disk.sectorBytes);
    if (this.#guests === undefined) this.#pumpSlots();
    else this.#shareSlots(this.#guests);
    while (this.#pageQueue.head !== undefined) {
      const operation = this.#pageQueue.head;
      if (!this.#pages.allocate(operation, this.#disk.sectorBytes)) break;
      this.#pageQueue.shift();
      this.#allocated(operation);
    }
  }

  /** Returns whether any slot was taken. */
  #pumpSlots(): boolean {
    const before = this.#ring.freeSlots;
    while (this.#slotQueue.head !== undefined) {
      const operation = this.#slotQueue.head;
      if (!issue(this.#ring, this.#pool, operation, this.#disk.sectorBytes)) break;
      this.#slotQueue.shift();
      this.#issued(operation);
    }
    return this.#ring.freeSlots < before;
  }

  /** Whoever took slots first last time comes second, or one of us could wait for ever. */
  #shareSlots(guests: GuestRings): void {
    if (this.#areGuestsFirst) {
      if (guests.relay() > 0) this.#areGuestsFirst = false;
      this.#pumpSlots();
    } else {
      if (this.#pumpSlots()) this.#areGuestsFirst = true;
      guests.relay();
    }
  }

  /**
   * Ends everything with EIO: the backend is broken or gone. Pages that are on the ring are never
   * used again, since the backend may still write to them.
   */
  breakDown(): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    for (const operation of this.#table.all) {
      if (!operation.isActive) continue;
      this.#dequeue(operation);
      this.#rangeLock.release(operation);
      forgetPages(operation);
      this.#refuseBroken(operation);
    }
  }

  #refuseBroken(operation: Operation): void {
    const isWrite = operation.command === NbdCmd.WRITE;
    const missing = isWrite ? missingBytes(operation) : 0;
    operation.errno = NbdErrno.EIO;
    if (missing > 0) operation.requester?.payloadRefused(operation, missing);
    this.#finish(operation);
  }

  #dequeue(operation: Operation): void {
    switch (operation.queue) {
      case Queue.PAGES:
        this.#pageQueue.remove(operation);
        return;
      case Queue.SLOTS:
        this.#slotQueue.remove(operation);
        return;
      case Queue.SPILL:
        this.#spilled.remove(operation);
        return;
      case Queue.RANGE:
        this.#rangeLock.release(operation);
        return;
      case Queue.ZEROES:
        this.#zeroes.remove(operation);
        return;
      case Queue.FLUSH:
        this.#flushes.remove(operation);
        return;
      default:
    }
  }

  // --- stages

  /**
   * A read that the pool can hold takes pages, and so does one that may be answered in pieces. Any
   * other first needs memory to be gathered in.
   */
  #startRead(operation: Operation): void {
    const isLarge = this.#pages.isLarge(operation);
    operation.isFragmented = this.#fragments.suit(operation, this.isStarved);
    // One that may have pieces and is large is whole only where all its pages are free.
    if (!isLarge || operation.mayFragment) this.#wantPages(operation);
    else this.#spilled.want(operation);
  }

  #rangeHeld(operation: Operation): void {
    if (operation.command === NbdCmd.TRIM) {
      operation.stage = Stage.DISCARD;
      this.#wantSlot(operation);
    } else if (operation.isRagged) {
      operation.stage = Stage.EDGES;
      this.#wantPages(operation);
    } else {
      this.#edgesKnown(operation);
    }
  }

  /** A write knows what surrounds it, if anything does, and may begin. */
  #edgesKnown(operation: Operation): void {
    if (operation.command === NbdCmd.WRITE) {
      operation.stage = Stage.WRITE;
      // Pages are taken when payload is there to fill them: see wantRoom.
      operation.requester?.payloadWanted(operation);
    } else if (operation.isRagged) {
      operation.stage = Stage.ZERO_EDGES;
      zeroEdges(this.#pool, operation, this.#disk.sectorBytes);
      this.#wantSlot(operation);
    } else {
      this.#zeroes.want(operation, this.#disk.sectorBytes);
    }
  }

  #wantPages(operation: Operation): void {
    if (this.#pageQueue.isEmpty && this.#pages.allocate(operation, this.#disk.sectorBytes)) {
      this.#allocated(operation);
      return;
    }
    if (this.#pageQueue.isEmpty) this.#counters.add(Counter.PAGE_WAITS, 1);
    this.#pageQueue.push(operation);
  }

  #wantSlot(operation: Operation): void {
    if (
      this.#slotQueue.isEmpty &&
      issue(this.#ring, this.#pool, operation, this.#disk.sectorBytes)
    ) {
      this.#issued(operation);
      return;
    }
    if (this.#slotQueue.isEmpty) this.#counters.add(Counter.SLOT_WAITS, 1);
    this.#slotQueue.push(operation);
  }

  #allocated(operation: Operation): void {
    if (operation.stage !== Stage.WRITE) {
      this.#wantSlot(operation);
      return;
    }
    if (operation.isRagged && operation.issuedBytes === 0) patchHead(this.#pool, operation);
    operation.requester?.payloadWanted(operation);
  }

  /** What comes after everything that was ready has been issued. */
  #issued(operation: Operation): void {
    if (operation.stage === Stage.READ && operation.allocatedBytes < operation.gridBytes) {
      if (!operation.isFragmented) this.#wantPages(operation);
    } else if (operation.stage === Stage.WRITE && operation.wantsRoom) {
      operation.wantsRoom = false;
      this.wantRoom(operation);
    }
  }

  /** Sends on what there is of a write, as far as it makes a sensible piece. */
  #advanceWrite(operation: Operation): void {
    if (operation.stage !== Stage.WRITE || operation.queue !== Queue.NONE) return;
    if (issuableBytes(operation, this.#ring.maxSegments) > 0) this.#wantSlot(operation);
  }

  // --- completion

  #partDone(part: Part): void {
    const errno = part.status === BlkifStatus.BLKIF_RSP_OKAY ? 0 : errnoOfStatus(part);
    if (part.role === PartRole.FLUSH) {
      const hasFailed = this.#flushes.answered(part.status, this.#disk.canFallBackToBarrier);
      if (hasFailed) countFailure(this.#counters, part);
      return;
    }
    const operation = part.operation;
    if (operation === undefined) {
      if (part.role === PartRole.RELAYED) this.#guests?.answered(part);
      return;
    }
    if (errno !== 0) countFailure(this.#counters, part);
    if (operation.errno === 0) operation.errno = errno;
    operation.partsInFlight -= 1;
    switch (part.role) {
      case PartRole.DATA:
        if (operation.spillAddress !== 0) {
          const target = operation.spillAddress + (part.firstByte - operation.firstByte);
          copyFromPages(this.#pool, part.firstPage, target, part.lengthBytes);
        }
        if (part.ownsPages) this.#pool.giveList(part.firstPage, part.pageCount);
        break;
      case PartRole.ZEROES:
        this.#zeroes.sliceDone();
        break;
      case PartRole.DISCARD:
        if (part.status === BlkifStatus.BLKIF_RSP_EOPNOTSUPP) this.#trimsRefused();
        break;
      default:
        break;
    }
    if (operation.partsInFlight === 0 && operation.queue === Queue.NONE) this.#settle(operation);
  }

  /** The backend takes no trims, whatever it has announced: from now on they end at once. */
  #trimsRefused(): void {
    this.#disk = { ...this.#disk, discard: undefined };
    this.#counters.values[Counter.TRIMS_REFUSED_NOW] = 1;
  }

  /** All parts of an operation are back and it waits for nothing: is there a next stage? */
  #settle(operation: Operation): void {
    switch (operation.stage) {
      case Stage.EDGES:
        if (operation.errno === 0) this.#edgesKnown(operation);
        else if (operation.command === NbdCmd.WRITE) this.#giveUpWrite(operation, operation.errno);
        else this.#dataDone(operation);
        return;
      case Stage.ZERO_EDGES:
        this.#edgesZeroed(operation);
        return;
      default:
        if (operation.issuedBytes >= operation.gridBytes) this.#dataDone(operation);
        else if (operation.isFragmented) this.#fragmentRead(operation);
    }
  }

  /** A piece of a read is there: it is sent before the next is asked for. */
  #fragmentRead(operation: Operation): void {
    if (operation.errno !== 0 || operation.requester === undefined) {
      this.#dataDone(operation);
      return;
    }
    operation.isMore = true;
    operation.isActive = false;
    operation.requester.replyReady(operation);
  }

  #edgesZeroed(operation: Operation): void {
    const sectorBytes = this.#disk.sectorBytes;
    const headBytes = operation.headPage === NO_PAGE ? 0 : sectorBytes;
    const tailBytes = operation.tailPage === NO_PAGE ? 0 : sectorBytes;
    giveBackEdges(this.#pool, operation);
    operation.issuedBytes = headBytes;
    const isMore = operation.gridBytes > headBytes + tailBytes;
    if (isMore && operation.errno === 0) this.#zeroes.want(operation, this.#disk.sectorBytes);
    else this.#dataDone(operation);
  }

  /** Ends a write whose payload is not, or will not be, complete. */
  #giveUpWrite(operation: Operation, errno: number): void {
    if (operation.errno === 0) operation.errno = errno;
    this.#dequeue(operation);
    const missing = missingBytes(operation);
    if (operation.stage !== Stage.EDGES || operation.partsInFlight === 0) {
      giveBackPages(this.#pool, operation);
    }
    // The rest of its fields now say: nothing is missing, nothing is left to issue.
    operation.stage = Stage.DRAIN;
    operation.lengthBytes = operation.filledBytes - operation.skewBytes;
    operation.gridBytes = operation.issuedBytes;
    operation.requester?.payloadRefused(operation, missing);
    if (operation.partsInFlight === 0) this.#dataDone(operation);
  }

  /** The data of an operation has been dealt with; what is left is to make it stable, or reply. */
  #dataDone(operation: Operation): void {
    this.#contexts.end(operation);
    this.#rangeLock.release(operation);
    if (this.#rangeLock.hasWaiting) this.#wakeRangeWaiters();
    if (operation.isFua && operation.errno === 0) this.#wantFlush(operation);
    else this.#finish(operation);
  }

  #wakeRangeWaiters(): void {
    for (;;) {
      const operation = this.#rangeLock.next();
      if (operation === undefined) return;
      this.#rangeHeld(operation);
    }
  }

  #wantFlush(operation: Operation): void {
    if (this.#disk.flush === 'none') this.#finish(operation);
    else this.#flushes.want(operation);
  }

  #finish(operation: Operation): void {
    operation.isActive = false;
    if (operation.requester === undefined) this.release(operation);
    else operation.requester.replyReady(operation);
  }
}

/** blkif status to NBD error number: the one place that knows both. */
function errnoOfStatus(part: Part): number {
  if (part.status === BlkifStatus.BLKIF_RSP_EOPNOTSUPP) {
    // A trim is a hint, and the backend has just said that it takes none.
    return part.role === PartRole.DISCARD ? 0 : NbdErrno.EIO;
  }
  return NbdErrno.EIO;
}
