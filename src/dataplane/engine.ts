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
 *   written to the socket from those pages. A read too large for the pool is gathered piece by
 *   piece in memory of its own.
 * - A write takes pages for a window of its payload, is filled by the connection, and gives each
 *   page back when the backend has taken it.
 * - Sectors that a client covers in part are read, patched and written under a range lock, so that
 *   two such writes never lose each other's bytes.
 * - A flush covers what was answered before it came. Flushes, and writes that wait for one (FUA),
 *   share: one is on the ring at a time, and those that come meanwhile share the next.
 */

import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import { BlkifStatus } from '../blkif/index.ts';
import { libc, PAGE_SIZE } from '../sys/index.ts';
import { Counter, type Counters } from './counters.ts';
import type { DiskShape } from './lane-config.ts';
import { Operation, OperationQueue, Queue, type Requester, Stage } from './operation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';
import { RangeLock, type SharedRanges } from './range-lock.ts';
import { type Part, PartRole, type RingRequests } from './ring-requests.ts';
import { SpillMemory } from './spill-memory.ts';

export interface EngineConfig {
  readonly disk: DiskShape;
  /** Writes in progress, shared with the other lanes; it also says how many operations we have. */
  readonly ranges: SharedRanges;
  readonly laneIndex: number;
  /** Most memory for reads that do not fit the pool. */
  readonly spillLimitBytes: number;
}

/** The parts that an engine works with. */
export interface EngineParts {
  readonly ring: RingRequests;
  readonly pool: PagePool;
  /** Granted pages that stay zero, the source of WRITE_ZEROES. */
  readonly zeroPool: PagePool;
  readonly counters: Counters;
}

/** A window of payload starts with this many pages or not at all, while others hold pages. */
const WINDOW_PAGES_MIN = 8;
/** What a window of payload holds at most, unless one ring request takes more. */
const WINDOW_PAGES = 64;
/** Ragged writes at work at once; each holds up to two pages while it waits for more. */
const RAGGED_MAX = 16;

export class Engine {
  #disk: DiskShape;
  readonly #ring: RingRequests;
  readonly #pool: PagePool;
  readonly #zeroPool: PagePool;
  readonly #counters: Counters;
  readonly #operations: Operation[] = [];
  readonly #free: Operation[] = [];
  #freeCount: number;
  readonly #rangeLock: RangeLock;
  readonly #spill: SpillMemory;

  readonly #pageQueue = new OperationQueue(Queue.PAGES);
  readonly #slotQueue = new OperationQueue(Queue.SLOTS);
  readonly #zeroQueue = new OperationQueue(Queue.ZEROES);
  /** Those that wait for the next flush, and those that the flush on the ring covers. */
  #flushWaiting = new OperationQueue(Queue.FLUSH);
  #flushCovered = new OperationQueue(Queue.FLUSH);
  #isFlushing = false;
  #isZeroing = false;

  readonly #readPagesMax: number;
  readonly #windowPages: number;
  #isBroken = false;
  #usesBarriers = false;

  constructor(config: EngineConfig, parts: EngineParts) {
    this.#disk = config.disk;
    this.#ring = parts.ring;
    this.#pool = parts.pool;
    this.#zeroPool = parts.zeroPool;
    this.#counters = parts.counters;
    const { operationCount } = config.ranges;
    for (let i = 0; i < operationCount; i++) this.#operations.push(new Operation(i));
    this.#free.push(...this.#operations.toReversed());
    this.#freeCount = operationCount;
    const quarter = Math.max(1, parts.pool.pageCount >>> 2);
    const raggedMax = Math.min(RAGGED_MAX, quarter);
    this.#rangeLock = new RangeLock(config.ranges, config.laneIndex, raggedMax);
    this.#spill = new SpillMemory(config.spillLimitBytes);
    this.#readPagesMax = quarter * 2;
    this.#windowPages = Math.min(quarter, Math.max(this.#ring.maxSegments, WINDOW_PAGES));
    for (let page = 1; page < this.#zeroPool.pageCount; page++) {
      this.#zeroPool.link(page - 1, page);
    }
  }

  get operationCount(): number {
    return this.#operations.length;
  }

  /** Whether something may become possible without an event to tell: look again soon. */
  get mustLookAgain(): boolean {
    return this.#rangeLock.waitsForOtherLanes;
  }

  /** Whether another request could be started. */
  get hasFree(): boolean {
    return this.#freeCount > 0;
  }

  /** Whether nothing is in progress. */
  get isIdle(): boolean {
    return this.#freeCount === this.#operations.length;
  }

  /** Takes an operation to be filled in and started; undefined when all are in progress. */
  take(): Operation | undefined {
    if (this.#freeCount === 0) return undefined;
    this.#freeCount -= 1;
    return this.#free[this.#freeCount];
  }

  /** Gives back one whose reply has been sent or which needs none. */
  release(operation: Operation): void {
    this.#giveBackPages(operation);
    if (operation.spillAddress !== 0) {
      this.#spill.free(operation.spillAddress, operation.spillBytes);
    }
    operation.reset();
    this.#free[this.#freeCount] = operation;
    this.#freeCount += 1;
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
    const hasRange = operation.lengthBytes > 0;
    switch (operation.command) {
      case NbdCmd.READ:
        this.#setGrid(operation);
        operation.stage = Stage.READ;
        if (hasRange) this.#wantPages(operation);
        else this.#finish(operation);
        return;
      case NbdCmd.WRITE:
      case NbdCmd.WRITE_ZEROES:
        this.#setGrid(operation);
        operation.filledBytes = operation.skewBytes;
        if (!hasRange) this.#dataDone(operation);
        else if (this.#rangeLock.acquire(operation)) this.#rangeHeld(operation);
        return;
      case NbdCmd.TRIM:
        this.#setDiscardRange(operation);
        if (operation.gridBytes === 0) this.#dataDone(operation);
        else if (this.#rangeLock.acquire(operation)) this.#rangeHeld(operation);
        return;
      case NbdCmd.FLUSH:
        this.#wantFlush(operation);
        return;
      default:
        this.#finish(operation);
    }
  }

  /** Answers an operation without doing anything: a request that was refused. */
  refuse(operation: Operation, errno: number): void {
    operation.isActive = true;
    operation.errno = errno;
    this.#finish(operation);
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
    for (const operation of this.#operations) {
      if (operation.isActive && operation.requester === requester) this.abandon(operation);
    }
  }

  // --- payload of writes: lengths here are below 2^31, and `| 0` keeps them small integers, which
  // V8 passes around without making objects of them

  /** Bytes of payload that the operation's window has room for. */
  roomBytes(operation: Operation): number {
    const room = (operation.allocatedBytes - operation.filledBytes) | 0;
    return Math.max(0, Math.min(room, this.missingBytes(operation)));
  }

  /**
   * There is payload for a write that has no room: takes pages for it, now or when its turn comes;
   * then the requester hears `payloadWanted`.
   */
  wantRoom(operation: Operation): void {
    if (operation.stage !== Stage.WRITE || operation.queue === Queue.PAGES) return;
    if (operation.queue === Queue.SLOTS) {
      // The window before waits for slots; the next is asked for when that has been sent on.
      operation.wantsRoom = true;
    } else if (this.roomBytes(operation) === 0 && this.missingBytes(operation) > 0) {
      this.#wantPages(operation);
    }
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
    const pool = this.#pool;
    const inPage = operation.filledBytes % PAGE_SIZE;
    const first = Math.max(operation.issuedBytes, operation.filledBytes - inPage);
    const from = first === operation.issuedBytes ? Math.max(first, operation.skewBytes) : first;
    const parkedBytes = operation.filledBytes - from;
    if (parkedBytes > 0) {
      const address = pool.addressOf(operation.fillPage) + (from % PAGE_SIZE);
      libc.memcpy(parkedAddress, address, parkedBytes);
    }
    const kept = (first - operation.issuedBytes) / PAGE_SIZE;
    let last = NO_PAGE;
    let page = operation.firstPage;
    for (let i = 0; i < kept; i++) {
      last = page;
      page = pool.next(page);
    }
    pool.giveList(page, operation.pageCount - kept);
    operation.pageCount = kept;
    operation.lastPage = last;
    operation.filledBytes = from;
    operation.allocatedBytes = first;
    operation.fillPage = NO_PAGE;
    if (kept === 0) {
      operation.firstPage = NO_PAGE;
      operation.issuePage = NO_PAGE;
    } else {
      pool.link(last, NO_PAGE);
      this.#advanceWrite(operation);
    }
    return parkedBytes;
  }

  /**
   * Moves the data of a read whose client does not take it from pages, which others need, to memory
   * of its own. False when there is too much of that already.
   */
  evacuate(operation: Operation): boolean {
    if (operation.dataBytes === 0 || operation.pageCount === 0) return true;
    const address = this.#spill.allocate(operation.gridBytes);
    if (address === 0) return false;
    let page = operation.firstPage;
    for (let at = 0; at < operation.gridBytes; at += PAGE_SIZE) {
      const count = Math.min(PAGE_SIZE, operation.gridBytes - at);
      libc.memcpy(address + at, this.#pool.addressOf(page), count);
      page = this.#pool.next(page);
    }
    this.#giveBackPages(operation);
    operation.spillAddress = address;
    operation.spillBytes = operation.gridBytes;
    return true;
  }

  /** Bytes of payload that have not arrived yet. */
  missingBytes(operation: Operation): number {
    return (operation.skewBytes + operation.lengthBytes - operation.filledBytes) | 0;
  }

  /** Copies payload from memory into the window: at most {@link roomBytes}. */
  fillFrom(operation: Operation, sourceAddress: number, lengthBytes: number): void {
    let done = 0;
    let page = operation.fillPage;
    let at = operation.filledBytes % PAGE_SIZE;
    while (done < lengthBytes) {
      const count = Math.min(lengthBytes - done, PAGE_SIZE - at);
      libc.memcpy(this.#pool.addressOf(page) + at, sourceAddress + done, count);
      done += count;
      page = this.#pool.next(page);
      at = 0;
    }
    this.filled(operation, lengthBytes);
  }

  /** Says that `lengthBytes` of payload were put into the window, from `fillPage` on. */
  filled(operation: Operation, lengthBytes: number): void {
    const pagesBefore = Math.floor(operation.filledBytes / PAGE_SIZE);
    operation.filledBytes += lengthBytes;
    const pagesNow = Math.floor(operation.filledBytes / PAGE_SIZE);
    for (let i = pagesBefore; i < pagesNow; i++) {
      operation.fillPage = this.#pool.next(operation.fillPage);
    }
    if (operation.isRagged && this.missingBytes(operation) === 0) this.#patchTail(operation);
    this.#advanceWrite(operation);
  }

  /**
   * The client of `operation` has gone. What is on the ring is waited for; a write whose payload
   * will never be complete gives back its pages and writes no more.
   */
  abandon(operation: Operation): void {
    operation.requester = undefined;
    if (operation.command !== NbdCmd.WRITE || this.missingBytes(operation) <= 0) return;
    this.#giveUpWrite(operation, NbdErrno.EIO);
  }

  // --- the ring

  /** A new connection to the backend may come with other abilities; the size is not ours to know. */
  diskChanged(disk: DiskShape): void {
    this.#disk = disk;
    this.#usesBarriers = false;
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
      this.#partDone(part);
      this.#ring.freePart(part);
    }
    return count;
  }

  /** Moves on everything that waited for what has become free. */
  pump(): void {
    this.#ring.replay();
    if (this.#rangeLock.waitsForOtherLanes) this.#wakeRangeWaiters();
    this.#pumpFlush();
    this.#pumpZeroes();
    while (this.#slotQueue.head !== undefined) {
      const operation = this.#slotQueue.head;
      if (!this.#issue(operation)) break;
      this.#slotQueue.shift();
      this.#issued(operation);
    }
    while (this.#pageQueue.head !== undefined) {
      const operation = this.#pageQueue.head;
      if (!this.#allocate(operation)) break;
      this.#pageQueue.shift();
      this.#allocated(operation);
    }
  }

  /**
   * Ends everything with EIO: the backend is broken or gone. Pages that are on the ring are never
   * used again, since the backend may still write to them.
   */
  breakDown(): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    for (const operation of this.#operations) {
      if (!operation.isActive) continue;
      this.#dequeue(operation);
      this.#rangeLock.release(operation);
      operation.firstPage = NO_PAGE;
      operation.pageCount = 0;
      operation.headPage = NO_PAGE;
      operation.tailPage = NO_PAGE;
      this.#refuseBroken(operation);
    }
  }

  #refuseBroken(operation: Operation): void {
    const isWrite = operation.command === NbdCmd.WRITE;
    const missingBytes = isWrite && operation.isActive ? this.missingBytes(operation) : 0;
    operation.errno = NbdErrno.EIO;
    if (missingBytes > 0) operation.requester?.payloadRefused(operation, missingBytes);
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
      case Queue.RANGE:
        this.#rangeLock.release(operation);
        return;
      case Queue.ZEROES:
        this.#zeroQueue.remove(operation);
        return;
      case Queue.FLUSH:
        this.#flushWaiting.remove(operation);
        this.#flushCovered.remove(operation);
        return;
      default:
    }
  }

  // --- stages

  #setGrid(operation: Operation): void {
    const sectorBytes = this.#disk.sectorBytes;
    const end = operation.offset + operation.lengthBytes;
    operation.firstByte = Math.floor(operation.offset / sectorBytes) * sectorBytes;
    operation.skewBytes = (operation.offset - operation.firstByte) | 0;
    operation.gridBytes = Math.ceil(end / sectorBytes) * sectorBytes - operation.firstByte;
    operation.isRagged = operation.skewBytes !== 0 || end % sectorBytes !== 0;
  }

  /** A trim is rounded inward: only whole blocks that the client named may lose their content. */
  #setDiscardRange(operation: Operation): void {
    const { sectorBytes, discard } = this.#disk;
    operation.gridBytes = 0;
    if (discard === undefined) return;
    const block = Math.max(sectorBytes, discard.granularityBytes);
    const shift = discard.alignmentBytes % block;
    const end = operation.offset + operation.lengthBytes;
    operation.firstByte = Math.ceil((operation.offset - shift) / block) * block + shift;
    const endByte = Math.floor((end - shift) / block) * block + shift;
    operation.gridBytes = Math.max(0, endByte - operation.firstByte);
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
      this.#zeroEdges(operation);
      this.#wantSlot(operation);
    } else {
      this.#wantZeroes(operation);
    }
  }

  #wantPages(operation: Operation): void {
    if (this.#pageQueue.isEmpty && this.#allocate(operation)) {
      this.#allocated(operation);
      return;
    }
    if (this.#pageQueue.isEmpty) this.#counters.add(Counter.PAGE_WAITS, 1);
    this.#pageQueue.push(operation);
  }

  #wantSlot(operation: Operation): void {
    if (this.#slotQueue.isEmpty && this.#issue(operation)) {
      this.#issued(operation);
      return;
    }
    if (this.#slotQueue.isEmpty) this.#counters.add(Counter.SLOT_WAITS, 1);
    this.#slotQueue.push(operation);
  }

  /** Gives the operation the pages it needs next; false when there are too few. */
  #allocate(operation: Operation): boolean {
    switch (operation.stage) {
      case Stage.READ:
        return this.#allocateRead(operation);
      case Stage.EDGES:
        return this.#allocateEdges(operation);
      default:
        return this.#allocateWindow(operation);
    }
  }

  #allocated(operation: Operation): void {
    if (operation.stage !== Stage.WRITE) {
      this.#wantSlot(operation);
      return;
    }
    if (operation.isRagged && operation.issuedBytes === 0) this.#patchHead(operation);
    operation.requester?.payloadWanted(operation);
  }

  #allocateRead(operation: Operation): boolean {
    const pages = Math.ceil((operation.gridBytes - operation.allocatedBytes) / PAGE_SIZE);
    if (pages <= this.#readPagesMax && operation.spillAddress === 0) {
      if (this.#pool.freeCount < pages) return false;
      this.#appendPages(operation, pages);
      operation.allocatedBytes = operation.gridBytes;
      return true;
    }
    if (operation.spillAddress === 0) {
      operation.spillAddress = this.#spill.allocate(operation.gridBytes);
      if (operation.spillAddress === 0) return false;
      operation.spillBytes = operation.gridBytes;
    }
    // One piece at a time; its pages come back when it has been copied out.
    const count = Math.min(pages, this.#ring.maxSegments);
    if (this.#pool.freeCount < count) return false;
    this.#appendPages(operation, count);
    operation.allocatedBytes = Math.min(
      operation.gridBytes,
      operation.allocatedBytes + count * PAGE_SIZE,
    );
    return true;
  }

  #allocateEdges(operation: Operation): boolean {
    const sectorBytes = this.#disk.sectorBytes;
    const hasHead = operation.skewBytes !== 0;
    const hasRaggedEnd = (operation.skewBytes + operation.lengthBytes) % sectorBytes !== 0;
    // A single sector that is ragged at both ends is its own head and needs no tail.
    const hasTail = hasRaggedEnd && !(hasHead && operation.gridBytes === sectorBytes);
    if (this.#pool.freeCount < Number(hasHead) + Number(hasTail)) return false;
    if (hasHead) operation.headPage = this.#pool.take();
    if (hasTail) operation.tailPage = this.#pool.take();
    return true;
  }

  #allocateWindow(operation: Operation): boolean {
    const left = Math.ceil((operation.gridBytes - operation.allocatedBytes) / PAGE_SIZE);
    const wanted = Math.min(left, this.#windowPages);
    const count = Math.min(wanted, this.#pool.freeCount);
    if (count < Math.min(wanted, WINDOW_PAGES_MIN)) return false;
    this.#appendPages(operation, count);
    operation.allocatedBytes = Math.min(
      operation.gridBytes,
      operation.allocatedBytes + count * PAGE_SIZE,
    );
    return true;
  }

  #appendPages(operation: Operation, count: number): void {
    const pool = this.#pool;
    const first = pool.takeList(count);
    if (operation.pageCount === 0) operation.firstPage = first;
    else pool.link(operation.lastPage, first);
    if (operation.issuePage === NO_PAGE) operation.issuePage = first;
    if (operation.fillPage === NO_PAGE) operation.fillPage = first;
    operation.lastPage = pool.lastTaken;
    operation.pageCount += count;
  }

  /** Puts what the operation has ready onto the ring; false when slots ran out before the end. */
  #issue(operation: Operation): boolean {
    const ring = this.#ring;
    switch (operation.stage) {
      case Stage.READ:
        return this.#issueData(operation, operation.allocatedBytes);
      case Stage.WRITE:
        return this.#issueData(operation, operation.issuedBytes + this.#issuableBytes(operation));
      case Stage.EDGES:
      case Stage.ZERO_EDGES:
        return this.#issueEdges(operation);
      case Stage.DISCARD:
        if (!ring.hasRoom) return false;
        ring.discard(operation);
        operation.issuedBytes = operation.gridBytes;
        return true;
      default:
        return true;
    }
  }

  #issueData(operation: Operation, endBytes: number): boolean {
    const ring = this.#ring;
    const isRead = operation.stage === Stage.READ;
    while (operation.issuedBytes < endBytes) {
      const pages = Math.min(
        Math.ceil((endBytes - operation.issuedBytes) / PAGE_SIZE),
        ring.maxSegments,
      );
      if (!ring.hasRoomFor(pages)) return false;
      const lengthBytes = Math.min(endBytes - operation.issuedBytes, pages * PAGE_SIZE);
      const first = operation.issuePage;
      const last = ring.transfer(operation, first, pages, lengthBytes);
      operation.issuePage = this.#pool.next(last);
      operation.issuedBytes += lengthBytes;
      // A read's pages stay with it until they are sent; others belong to the part from now on.
      if (!isRead || operation.spillAddress !== 0) this.#cutPages(operation, pages);
    }
    return true;
  }

  /** Takes the first `count` pages off the operation's list. */
  #cutPages(operation: Operation, count: number): void {
    operation.pageCount -= count;
    operation.firstPage = operation.issuePage;
    if (operation.pageCount === 0) {
      operation.firstPage = NO_PAGE;
      operation.lastPage = NO_PAGE;
      operation.fillPage = NO_PAGE;
      operation.issuePage = NO_PAGE;
    }
  }

  #issueEdges(operation: Operation): boolean {
    const ring = this.#ring;
    const sectorBytes = this.#disk.sectorBytes;
    const isWrite = operation.stage === Stage.ZERO_EDGES;
    const edges = Number(operation.headPage !== NO_PAGE) + Number(operation.tailPage !== NO_PAGE);
    // A lost ring has free slots as well, in memory that may be gone.
    if (!ring.hasRoom || ring.freeSlots < edges) return false;
    if (operation.headPage !== NO_PAGE) {
      ring.edge(operation, operation.headPage, operation.firstByte, sectorBytes, isWrite);
    }
    if (operation.tailPage !== NO_PAGE) {
      const lastSectorByte = operation.firstByte + operation.gridBytes - sectorBytes;
      ring.edge(operation, operation.tailPage, lastSectorByte, sectorBytes, isWrite);
    }
    return true;
  }

  /** What comes after everything that was ready has been issued. */
  #issued(operation: Operation): void {
    if (operation.stage === Stage.READ && operation.allocatedBytes < operation.gridBytes) {
      this.#wantPages(operation);
    } else if (operation.stage === Stage.WRITE && operation.wantsRoom) {
      operation.wantsRoom = false;
      this.wantRoom(operation);
    }
  }

  /** Sends on what there is of a write, as far as it makes a sensible piece. */
  #advanceWrite(operation: Operation): void {
    if (operation.stage !== Stage.WRITE || operation.queue !== Queue.NONE) return;
    if (this.#issuableBytes(operation) > 0) this.#wantSlot(operation);
  }

  /** How much of a write may go to the ring: whole pages, or all of it when it is complete. */
  #issuableBytes(operation: Operation): number {
    if (this.missingBytes(operation) <= 0) return operation.gridBytes - operation.issuedBytes;
    const whole = Math.floor(operation.filledBytes / PAGE_SIZE) * PAGE_SIZE;
    const ready = whole - operation.issuedBytes;
    // Small pieces wait for company, unless the window has no room left for any.
    const isWindowFull = operation.filledBytes >= operation.allocatedBytes;
    return isWindowFull || ready >= this.#ring.maxSegments * PAGE_SIZE ? ready : 0;
  }

  // --- the ends of ragged writes

  #patchHead(operation: Operation): void {
    if (operation.headPage === NO_PAGE) return;
    const from = this.#pool.addressOf(operation.headPage);
    libc.memcpy(this.#pool.addressOf(operation.firstPage), from, operation.skewBytes);
  }

  #patchTail(operation: Operation): void {
    const endBytes = operation.skewBytes + operation.lengthBytes;
    const keptBytes = operation.gridBytes - endBytes;
    const edgePage = operation.tailPage === NO_PAGE ? operation.headPage : operation.tailPage;
    if (keptBytes > 0) {
      const inSector = this.#disk.sectorBytes - keptBytes;
      const target = this.#pool.addressOf(operation.lastPage) + (endBytes % PAGE_SIZE);
      libc.memcpy(target, this.#pool.addressOf(edgePage) + inSector, keptBytes);
    }
    this.#giveBackEdges(operation);
  }

  #zeroEdges(operation: Operation): void {
    const sectorBytes = this.#disk.sectorBytes;
    const endBytes = operation.skewBytes + operation.lengthBytes;
    if (operation.headPage !== NO_PAGE) {
      const count = Math.min(endBytes, sectorBytes) - operation.skewBytes;
      libc.memset(this.#pool.addressOf(operation.headPage) + operation.skewBytes, 0, count);
    }
    if (operation.tailPage !== NO_PAGE) {
      const count = endBytes - (operation.gridBytes - sectorBytes);
      libc.memset(this.#pool.addressOf(operation.tailPage), 0, count);
    }
  }

  #giveBackEdges(operation: Operation): void {
    if (operation.headPage !== NO_PAGE) this.#pool.give(operation.headPage);
    if (operation.tailPage !== NO_PAGE) this.#pool.give(operation.tailPage);
    operation.headPage = NO_PAGE;
    operation.tailPage = NO_PAGE;
  }

  #giveBackPages(operation: Operation): void {
    this.#giveBackEdges(operation);
    if (operation.pageCount > 0) this.#pool.giveList(operation.firstPage, operation.pageCount);
    operation.pageCount = 0;
    operation.firstPage = NO_PAGE;
  }

  // --- zeroes

  /** Whole sectors of zeroes, one slice on the ring at a time, so that others get their turns. */
  #wantZeroes(operation: Operation): void {
    operation.stage = Stage.ZEROES;
    this.#zeroQueue.push(operation);
    this.#pumpZeroes();
  }

  #pumpZeroes(): void {
    const operation = this.#zeroQueue.head;
    if (operation === undefined || this.#isZeroing) return;
    const sectorBytes = this.#disk.sectorBytes;
    const hasRaggedEnd = (operation.skewBytes + operation.lengthBytes) % sectorBytes !== 0;
    const endBytes = operation.gridBytes - (hasRaggedEnd ? sectorBytes : 0);
    if (operation.errno !== 0 || operation.requester === undefined) {
      // A slice failed, or the client has gone: the rest need not be written.
      this.#zeroQueue.shift();
      operation.stage = Stage.DRAIN;
      operation.issuedBytes = operation.gridBytes;
      this.#settle(operation);
      this.#pumpZeroes();
      return;
    }
    const pages = Math.min(
      Math.ceil((endBytes - operation.issuedBytes) / PAGE_SIZE),
      this.#zeroPool.pageCount,
      this.#ring.maxSegments,
    );
    if (!this.#ring.hasRoomFor(pages)) return;
    const lengthBytes = Math.min(endBytes - operation.issuedBytes, pages * PAGE_SIZE);
    this.#ring.zeroes(operation, pages, lengthBytes);
    this.#isZeroing = true;
    operation.issuedBytes += lengthBytes;
    if (operation.issuedBytes >= endBytes) {
      operation.issuedBytes = operation.gridBytes;
      operation.stage = Stage.DRAIN;
      this.#zeroQueue.shift();
    }
  }

  // --- flushes

  #wantFlush(operation: Operation): void {
    if (this.#disk.flush === 'none') {
      this.#finish(operation);
      return;
    }
    this.#flushWaiting.push(operation);
    this.#pumpFlush();
  }

  #pumpFlush(): void {
    if (this.#isFlushing || this.#flushWaiting.isEmpty || !this.#ring.hasRoom) return;
    // Everyone who waits has seen its own writes completed, so one flush that starts now does for
    // all; whoever comes later may have completed a write after this flush was cut, and waits.
    const covered = this.#flushWaiting;
    this.#flushWaiting = this.#flushCovered;
    this.#flushCovered = covered;
    this.#isFlushing = true;
    this.#ring.flush();
  }

  #flushAnswered(status: number): void {
    this.#isFlushing = false;
    const isUnsupported = status === BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
    if (isUnsupported && this.#disk.canFallBackToBarrier && !this.#usesBarriers) {
      // Those who wait were promised a flush: they get the next best kind.
      this.#usesBarriers = true;
      this.#ring.flushWithBarriers();
      const waiting = this.#flushCovered;
      this.#flushCovered = this.#flushWaiting;
      this.#flushWaiting = waiting;
      for (;;) {
        const later = this.#flushCovered.shift();
        if (later === undefined) break;
        this.#flushWaiting.push(later);
      }
      this.#pumpFlush();
      return;
    }
    this.#flushDone(status === BlkifStatus.BLKIF_RSP_OKAY ? 0 : NbdErrno.EIO);
  }

  #flushDone(errno: number): void {
    for (;;) {
      const operation = this.#flushCovered.shift();
      if (operation === undefined) break;
      if (operation.errno === 0) operation.errno = errno;
      this.#finish(operation);
    }
    this.#pumpFlush();
  }

  // --- completion

  #partDone(part: Part): void {
    const errno = part.status === BlkifStatus.BLKIF_RSP_OKAY ? 0 : errnoOfStatus(part);
    if (part.role === PartRole.FLUSH) {
      this.#flushAnswered(part.status);
      return;
    }
    const operation = part.operation;
    if (operation === undefined) return;
    if (operation.errno === 0) operation.errno = errno;
    operation.partsInFlight -= 1;
    switch (part.role) {
      case PartRole.DATA:
        if (operation.spillAddress !== 0) this.#copyOut(operation, part);
        if (part.ownsPages) this.#pool.giveList(part.firstPage, part.pageCount);
        break;
      case PartRole.ZEROES:
        this.#isZeroing = false;
        break;
      default:
        break;
    }
    if (operation.partsInFlight === 0 && operation.queue === Queue.NONE) this.#settle(operation);
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
    }
  }

  #edgesZeroed(operation: Operation): void {
    const sectorBytes = this.#disk.sectorBytes;
    const headBytes = operation.headPage === NO_PAGE ? 0 : sectorBytes;
    const tailBytes = operation.tailPage === NO_PAGE ? 0 : sectorBytes;
    this.#giveBackEdges(operation);
    operation.issuedBytes = headBytes;
    const isMore = operation.gridBytes > headBytes + tailBytes;
    if (isMore && operation.errno === 0) this.#wantZeroes(operation);
    else this.#dataDone(operation);
  }

  #copyOut(operation: Operation, part: Part): void {
    let page = part.firstPage;
    let target = operation.spillAddress + (part.firstByte - operation.firstByte);
    let left = part.lengthBytes;
    while (left > 0) {
      const count = Math.min(left, PAGE_SIZE);
      libc.memcpy(target, this.#pool.addressOf(page), count);
      target += count;
      left -= count;
      page = this.#pool.next(page);
    }
  }

  /** Ends a write whose payload is not, or will not be, complete. */
  #giveUpWrite(operation: Operation, errno: number): void {
    if (operation.errno === 0) operation.errno = errno;
    this.#dequeue(operation);
    const missingBytes = this.missingBytes(operation);
    if (operation.stage !== Stage.EDGES || operation.partsInFlight === 0) {
      this.#giveBackPages(operation);
    }
    // The rest of its fields now say: nothing is missing, nothing is left to issue.
    operation.stage = Stage.DRAIN;
    operation.lengthBytes = operation.filledBytes - operation.skewBytes;
    operation.gridBytes = operation.issuedBytes;
    operation.requester?.payloadRefused(operation, missingBytes);
    if (operation.partsInFlight === 0) this.#dataDone(operation);
  }

  /** The data of an operation has been dealt with; what is left is to make it stable, or reply. */
  #dataDone(operation: Operation): void {
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

  #finish(operation: Operation): void {
    operation.isActive = false;
    if (operation.errno !== 0) this.#counters.add(Counter.ERRORS, 1);
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
