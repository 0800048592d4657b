/**
 * One NBD client in the transmission phase: its socket, the requests in its receive buffer, the
 * payload it is sending, and the replies it waits for.
 *
 * Receiving: headers and small payloads arrive together in a receive buffer and payload is copied
 * to granted pages; the rest of a large payload is read from the socket straight into them.
 *
 * Back-pressure: when there is no operation, no page or no place under its limit for a client, the
 * connection *stalls*: its bytes stay where they are, its socket is not read, and it goes on when
 * the engine says so. A client that does not read its replies stalls in the same way, because its
 * operations stay in progress until their replies have left.
 */

import {
  checkRequest,
  createRequest,
  decodeExtendedRequest,
  decodeRequest,
  EXTENDED_REQUEST_BYTES,
  type ExportInfo,
  NbdCmd,
  NbdCmdFlag,
  NbdErrno,
  type NbdRequest,
  REQUEST_BYTES,
  requestPayloadBytes,
} from 'nbd-server-ts/protocol';
import { EPOLLIN, EPOLLOUT, Errno, errno, libc, PAGE_SIZE } from '../sys/index.ts';
import { ClientProgress } from './client-progress.ts';
import type { CloseReason } from './close-reason.ts';
import { Counter, countReply, countRequest } from './counters.ts';
import type { LaneCore } from './lane-core.ts';
import { elapsedUs } from './latency.ts';
import type { Operation, Requester } from './operation.ts';
import { ParkedPayload } from './parked-payload.ts';
import { missingBytes, roomBytes } from './payload.ts';
import { ReadWindow } from './read-window.ts';
import type { ReceiveBuffer } from './receive-buffers.ts';
import { encodeReplyHeader, HEADER_SLOT_BYTES, type ReplyForm } from './reply-header.ts';
import { ReplyQueue } from './reply-queue.ts';

/** After this many full reads of one socket the others get their turn. */
const READS_PER_TURN = 8;
/** Payload smaller than this is received with whatever else there is, and copied. */
const DIRECT_BYTES_MIN = 16 * 1024;
/** A client that has left more than this of its replies unread is given no further ones. */
const BACKLOG_MAX = 4 * 1024 * 1024;
export class NbdConnection implements Requester {
  readonly id: number;
  readonly fd: number;
  readonly #core: LaneCore;
  #info: ExportInfo;
  readonly #agreement: ReplyForm;
  readonly #headerBytes: number;
  readonly #request: NbdRequest = createRequest();

  #buffer: ReceiveBuffer | undefined;
  /** Bytes of the buffer that were not dealt with yet. */
  #start = 0;
  #end = 0;
  /** The write whose payload is arriving. */
  #current: Operation | undefined;
  /** Payload of refused writes, still to be thrown away. */
  #skipBytes = 0;
  /** The last request was a large write; so may be the next. */
  #isBulk = false;

  #operationsNow = 0;
  /** When the last request came, no other was in progress. */
  #wasAlone = false;
  /** Bytes of reads and writes among them. */
  #bytesNow = 0;
  readonly #window: ReadWindow;
  /** Nothing more is read: the client said goodbye, or closed its side. */
  #isInputOver = false;
  #isStalled = false;
  /** Woken and not resumed yet: what is in the buffer comes before what the socket has. */
  #isWoken = false;
  #events: number = EPOLLIN;
  readonly #replies = new ReplyQueue();
  readonly #progress = new ClientProgress();
  readonly #parked = new ParkedPayload();
  #isDirty = false;
  #closeReason: CloseReason | undefined;
  /** What to say when the last reply has left. */
  #goodbye: CloseReason = 'client disconnected';
  requestCount = 0;

  constructor(core: LaneCore, id: number, fd: number, info: ExportInfo, agreement: ReplyForm) {
    this.#core = core;
    this.id = id;
    this.fd = fd;
    this.#info = info;
    this.#agreement = agreement;
    this.#window = new ReadWindow(fd);
    this.#headerBytes = agreement.isExtended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
  }

  /** Events that the socket is watched for. */
  get events(): number {
    return this.#events;
  }

  get isClosed(): boolean {
    return this.#closeReason !== undefined;
  }

  /** Bytes that came with the handshake and belong to this phase already. */
  adoptBytes(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.isClosed) {
      const buffer = this.#makeRoom();
      const count = Math.min(bytes.length - at, buffer.bytes.length - this.#end);
      if (count === 0) {
        // A client that sends a buffer full of requests before it knows the export is no client.
        this.close('client sent more than fits before it knew the export');
        return;
      }
      buffer.bytes.set(bytes.subarray(at, at + count), this.#end);
      this.#end += count;
      at += count;
      this.#parse();
    }
    this.#giveBuffer();
  }

  // --- receiving

  onReadable(): void {
    for (let round = 0; round < READS_PER_TURN; round++) {
      // The end of the stream must not be seen before requests that were received in full.
      if (this.isClosed || this.#isInputOver || this.#isWoken) return;
      if (this.#isStalled) {
        this.#watch(this.#events & ~EPOLLIN);
        return;
      }
      const current = this.#current;
      const isDirect = current !== undefined && this.#start === this.#end && this.#isBulk;
      if (isDirect && !this.#haveRoom(current)) continue;
      const isMore = isDirect ? this.#receivePayload(current) : this.#receive();
      if (!isMore) return;
    }
  }

  /** Reads what there is into the buffer. Returns whether the socket may have more. */
  #receive(): boolean {
    const buffer = this.#makeRoom();
    const space = buffer.bytes.length - this.#end;
    // Payload that arrives with its header has to be copied: where much of it is likely, the header
    // is received alone.
    const isHeaderNext = this.#isBulk && this.#current === undefined && this.#skipBytes === 0;
    const room = isHeaderNext ? Math.min(space, this.#headerBytes) : space;
    const count = libc.recv(this.fd, buffer.address + this.#end, room, 0);
    if (count <= 0) return this.#received(count);
    this.#end += count;
    this.#parse();
    this.#giveBuffer();
    return count === room;
  }

  /** Reads payload straight into granted pages, and what follows it into the buffer. */
  #receivePayload(operation: Operation): boolean {
    const { engine, pool, iovec } = this.#core;
    const room = roomBytes(operation);
    let page = operation.fillPage;
    let at = operation.filledBytes % PAGE_SIZE;
    iovec.clear();
    let planned = 0;
    while (planned < room) {
      const count = Math.min(room - planned, PAGE_SIZE - at);
      iovec.add(pool.addressOf(page) + at, count);
      planned += count;
      at = 0;
      page = pool.next(page);
    }
    const isLast = room === missingBytes(operation);
    this.#start = 0;
    this.#end = 0;
    if (isLast) {
      // One header more, so that a stream of large writes needs one call for each of them; what
      // follows that header goes to its place directly again.
      const buffer = this.#makeRoom();
      iovec.add(buffer.address, this.#headerBytes);
    }
    const asked = iovec.lengthBytes;
    const count = libc.readv(this.fd, iovec.address, iovec.count);
    if (count <= 0) {
      this.#giveBuffer();
      return this.#received(count);
    }
    const payload = Math.min(count, room);
    if (isLast && payload === room) this.#current = undefined;
    engine.filled(operation, payload);
    this.#end = count - payload;
    this.#parse();
    this.#giveBuffer();
    return count === asked || this.#start < this.#end || this.#current !== undefined;
  }

  /** recv said that there is nothing now, nothing ever again, or an error. */
  #received(count: number): false {
    if (count === 0) {
      this.#endInput('client left without disconnecting');
      return false;
    }
    const number = errno();
    if (number !== Errno.EAGAIN && number !== Errno.EINTR) this.close('connection failed');
    return false;
  }

  /** The buffer, with what is left in it moved to the front. */
  #makeRoom(): ReceiveBuffer {
    this.#buffer ??= this.#core.buffers.take();
    if (this.#start > 0) {
      this.#buffer.bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    return this.#buffer;
  }

  #giveBuffer(): void {
    if (this.#buffer === undefined || this.#start < this.#end) return;
    this.#core.buffers.give(this.#buffer);
    this.#buffer = undefined;
    this.#start = 0;
    this.#end = 0;
  }

  /** Deals with the bytes in the buffer, until they end or the connection stalls. */
  #parse(): void {
    while (!this.isClosed && !this.#isInputOver) {
      const available = this.#end - this.#start;
      if (this.#skipBytes > 0) {
        const count = Math.min(available, this.#skipBytes);
        this.#skipBytes -= count;
        this.#start += count;
        if (this.#skipBytes > 0) return;
      } else if (this.#current !== undefined) {
        if (!this.#fill(this.#current, available)) return;
      } else {
        if (available < this.#headerBytes || !this.#takeRequest()) return;
      }
    }
  }

  /** Copies payload from the buffer. Returns whether parsing can go on. */
  #fill(operation: Operation, available: number): boolean {
    if (available === 0 || !this.#haveRoom(operation)) return false;
    const { engine } = this.#core;
    const missing = missingBytes(operation);
    const count = Math.min(available, roomBytes(operation)) | 0;
    if (count === missing) this.#current = undefined;
    const source = (this.#buffer as ReceiveBuffer).address + this.#start;
    this.#start += count;
    engine.fillFrom(operation, source, count);
    return true;
  }

  /** Whether there are pages for payload. Otherwise stalls until there are. */
  #haveRoom(operation: Operation): boolean {
    const { engine } = this.#core;
    if (roomBytes(operation) === 0) engine.wantRoom(operation);
    const room = roomBytes(operation);
    if (this.#current !== operation) return false;
    const { bytes } = this.#parked;
    if (bytes > 0 && room >= bytes) this.#parked.giveBack(engine, operation);
    this.#isStalled = roomBytes(operation) === 0;
    return !this.#isStalled;
  }

  /** Starts the request at the front of the buffer. Returns whether parsing can go on. */
  #takeRequest(): boolean {
    const { limits } = this.#core;
    if (
      this.#operationsNow >= limits.operationsPerConnection ||
      this.#replies.isParked ||
      this.#replies.backlogBytes > BACKLOG_MAX
    ) {
      this.#isStalled = true;
      return false;
    }
    const request = this.#request;
    const { view } = this.#buffer as ReceiveBuffer;
    const decode = this.#agreement.isExtended ? decodeExtendedRequest : decodeRequest;
    if (!decode(view, this.#start, request)) {
      this.close('client sent something that is no request');
      return false;
    }
    if (request.command === NbdCmd.DISC) {
      this.#start = this.#end;
      this.#endInput('client disconnected');
      return false;
    }
    const bytes = carriesData(request) ? request.lengthBytes : 0;
    const bytesNow = this.#bytesNow + bytes;
    const isTooMuch =
      this.#bytesNow > 0 &&
      (bytesNow > limits.bytesPerConnection ||
        (request.command === NbdCmd.READ && !this.#window.admits(bytesNow)));
    const laneBytes = bytesNow <= limits.ownBytes ? 0 : bytes;
    const operation = isTooMuch
      ? undefined
      : this.#core.takeOperation(this, laneBytes, this.#operationsNow === 0);
    if (operation === undefined) {
      this.#isStalled = true;
      return false;
    }
    operation.clientBytes = bytes;
    this.#start += this.#headerBytes;
    this.#operationsNow += 1;
    this.#bytesNow = bytesNow;
    this.requestCount += 1;
    this.#startOperation(operation, request);
    return true;
  }

  #startOperation(operation: Operation, request: NbdRequest): void {
    const { counters, engine } = this.#core;
    const { command } = request;
    operation.requester = this;
    operation.command = command;
    operation.startedUs = this.#core.nowUs;
    operation.cookieHigh = request.cookieHigh | 0;
    operation.cookieLow = request.cookieLow | 0;
    operation.offsetHigh = request.offsetHigh | 0;
    operation.offsetLow = request.offsetLow | 0;
    operation.offset = request.offset;
    operation.lengthBytes = request.lengthBytes;
    this.#isBulk = command === NbdCmd.WRITE && request.lengthBytes >= DIRECT_BYTES_MIN;
    countRequest(counters, command, request.lengthBytes);
    const refusal = this.#core.isDraining
      ? NbdErrno.ESHUTDOWN
      : checkRequest(request, this.#info, this.#agreement);
    if (refusal !== 0) {
      this.#skipBytes = requestPayloadBytes(request, this.#agreement.isExtended);
      engine.refuse(operation, refusal);
      return;
    }
    operation.isFua = (request.flags & NbdCmdFlag.FUA) !== 0 && this.#info.canFua;
    const isAlone = this.#operationsNow === 1;
    // Not after several that left together, whose successors come one after the other as well.
    operation.isAlone = isAlone && this.#wasAlone;
    this.#wasAlone = isAlone;
    operation.mayFragment =
      command === NbdCmd.READ &&
      (this.#agreement.isStructured || this.#agreement.isExtended) &&
      (request.flags & NbdCmdFlag.DF) === 0;
    operation.isOneExtent = (request.flags & NbdCmdFlag.REQ_ONE) !== 0;
    if (command === NbdCmd.WRITE && request.lengthBytes > 0) this.#current = operation;
    engine.start(operation);
  }

  // --- what the engine says

  payloadWanted(_operation: Operation): void {
    this.wake();
  }

  payloadRefused(operation: Operation, missingBytes: number): void {
    if (this.#current !== operation) return;
    this.#current = undefined;
    // What was parked has arrived already.
    this.#skipBytes = missingBytes - this.#parked.bytes;
    this.#parked.drop();
    this.wake();
  }

  replyReady(operation: Operation): void {
    const { headers, statusReplies } = this.#core;
    if (!operation.isMore) this.#countReply(operation);
    if (operation.command === NbdCmd.BLOCK_STATUS && operation.errno === 0) {
      statusReplies.encode(operation, this.#agreement, this.#core);
    } else {
      const at = operation.index * HEADER_SLOT_BYTES;
      encodeReplyHeader(headers.view, at, operation, this.#agreement);
    }
    this.#replies.push(operation);
    this.#markDirty();
  }

  #countReply(operation: Operation): void {
    const { counters, nowUs, trace } = this.#core;
    const latencyUs = elapsedUs(nowUs, operation.startedUs);
    countReply(counters, operation.command, operation.errno, latencyUs);
    trace?.record(operation, this.id, counters.values[Counter.CLOCK_MS_NOW], latencyUs);
  }

  #markDirty(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    this.#core.markDirty(this);
  }

  /** Ends a stall: the connection goes on in this turn of the loop. */
  wake(): void {
    if (!this.#isStalled || this.isClosed) return;
    this.#isStalled = false;
    this.#isWoken = true;
    this.#core.markAwake(this);
  }

  /** Goes on after {@link wake}. */
  resume(): void {
    this.#isWoken = false;
    if (this.isClosed) return;
    this.#parse();
    this.#giveBuffer();
    if (!this.#isStalled && !this.#isInputOver) this.#watch(this.#events | EPOLLIN);
  }

  // --- sending

  /** Sends the replies that are ready. */
  flushReplies(): void {
    this.#isDirty = false;
    if (this.isClosed) return;
    const { iovec } = this.#core;
    while (!this.#replies.isEmpty) {
      this.#replies.gather(this.#core);
      const asked = iovec.lengthBytes;
      const count = libc.writev(this.fd, iovec.address, iovec.count);
      if (count < 0) {
        const number = errno();
        if (number === Errno.EAGAIN) break;
        if (number === Errno.EINTR) continue;
        this.close('connection failed');
        return;
      }
      this.#window.sent(count);
      this.#progress.sent(count);
      this.#replies.sent(count, this.#core);
      this.#countSent();
      if (count < asked) break;
    }
    // A client that stalled at a limit of its own goes on when it has room again.
    this.wake();
    const isBlocked = !this.#replies.isEmpty;
    if (!isBlocked) this.#progress.sentAll();
    this.#watch(isBlocked ? this.#events | EPOLLOUT : this.#events & ~EPOLLOUT);
    const isOver = this.#isInputOver || this.#core.isDraining;
    if (isOver && this.#isIdle) this.close(this.#goodbye);
  }

  /** Operations whose replies have left, or are parked, count no more. */
  #countSent(): void {
    this.#operationsNow -= this.#replies.completedCount;
    this.#bytesNow -= this.#replies.completedBytes;
  }

  /** The socket takes more: the replies leave at the end of this turn, like all others. */
  onWritable(): void {
    this.#markDirty();
  }

  /**
   * Others wait for operations or pages: gives back those that are held for a client that has not
   * read its replies, or sent of its payload, since the last time somebody looked.
   */
  makeRoom(): void {
    const isBlocked = !this.#replies.isEmpty && (this.#events & EPOLLOUT) !== 0;
    if (this.#progress.isSlow(isBlocked)) this.#parkReplies();
    const current = this.#current;
    const isLate = this.#progress.isPayloadLate(current === undefined ? 0 : missingBytes(current));
    if (current !== undefined && isLate) this.#parked.park(this.#core.engine, current);
  }

  #parkReplies(): void {
    if (!this.#replies.park(this.#core)) {
      this.close('client does not read its replies');
      return;
    }
    this.#countSent();
    this.#window.close();
    // Nothing more is begun for it until it has taken them, so it must not stand in line.
    this.#core.stopWaiting(this);
  }

  /**
   * Somebody waits for what clients may hold: ends one that for too long has taken nothing of its
   * replies, or sent nothing of a payload.
   */
  checkProgress(nowMs: number): void {
    const { unsentBytes } = this.#replies;
    const isExpected = this.#current !== undefined && !this.#isStalled;
    const owedBytes = unsentBytes + (isExpected ? missingBytes(this.#current as Operation) : 0);
    if (!this.#progress.hasStopped(owedBytes, nowMs)) return;
    const isUnread = unsentBytes > 0;
    this.close(
      isUnread ? 'client does not read its replies' : 'client stopped in the middle of a write',
    );
  }

  // --- the end

  /** The server stops: what is in progress is answered, then the connection ends. */
  drain(): void {
    this.#goodbye = 'server stops';
    if (this.#isIdle) this.close('server stops');
  }

  /** Nothing is in progress, and nothing waits to be sent. */
  get #isIdle(): boolean {
    return this.#operationsNow === 0 && this.#replies.isEmpty;
  }

  #endInput(goodbye: CloseReason): void {
    this.#isInputOver = true;
    this.#goodbye = goodbye;
    this.#watch(this.#events & ~EPOLLIN);
    const unfinished = this.#current;
    if (unfinished !== undefined) {
      this.#current = undefined;
      // Nobody will send the rest; the operation is not answered, and counts no more.
      this.#operationsNow -= 1;
      this.#bytesNow -= unfinished.clientBytes;
      this.#core.engine.abandon(unfinished);
    }
    if (this.#isIdle) this.close(goodbye);
  }

  /** Ends the connection now. Operations in progress run to their end unanswered. */
  close(reason: CloseReason): void {
    if (this.isClosed) return;
    this.#closeReason = reason;
    this.#replies.drop(this.#core);
    this.#core.abandonAll(this);
    this.#parked.drop();
    this.#start = this.#end;
    this.#giveBuffer();
    this.#core.connectionClosed(this, reason);
  }

  #watch(events: number): void {
    if (events === this.#events || this.isClosed) return;
    this.#events = events;
    this.#core.watch(this, events);
  }
}

/** Whether data of the request's length goes one way or the other. */
function carriesData({ command }: NbdRequest): boolean {
  return command === NbdCmd.READ || command === NbdCmd.WRITE;
}
