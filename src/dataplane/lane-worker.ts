/**
 * A lane: the thread that owns one ring and the connections served through it.
 *
 * It lives in its own epoll loop and never returns to the event loop of its thread. Each turn
 * drains everything that is ready, in an order that lets the other parties work meanwhile:
 * responses of the backend first, then new requests, then one publication and at most one
 * notification, and only then the replies. Batches grow by themselves as the load does.
 */

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { EventChannel, EventChannelModule } from '../host/index.ts';
import {
  allocateMemory,
  BusyPoll,
  drainEventFd,
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  Epoll,
  enlargeSendBuffer,
  libc,
  type Memory,
  MonotonicClock,
  scheduleInBatches,
  setThreadName,
  yieldProcessor,
} from '../sys/index.ts';
import type { CloseReason } from './close-reason.ts';
import { ConnectionList } from './connection-list.ts';
import { Counter, Counters } from './counters.ts';
import { Engine } from './engine.ts';
import { FinalFlush } from './final-flush.ts';
import { type GuestList, GuestRings } from './guest-rings.ts';
import { Iovec } from './iovec.ts';
import {
  type LaneConfig,
  type LaneLimits,
  RECEIVE_BUFFER_BYTES,
  SEND_BUFFER_BYTES,
} from './lane-config.ts';
import { LaneContexts } from './lane-contexts.ts';
import type { LaneCore } from './lane-core.ts';
import type { LaneEvent, LaneMessage } from './messages.ts';
import { NbdConnection } from './nbd-connection.ts';
import type { Operation } from './operation.ts';
import { PagePool } from './page-pool.ts';
import { isPrivateChannel, openPrivateChannel } from './private-channel.ts';
import { ReceiveBuffers } from './receive-buffers.ts';
import { HEADER_SLOT_BYTES } from './reply-header.ts';
import { RingRequests } from './ring-requests.ts';
import { SpuriousEvents } from './spurious-events.ts';
import { StatusReplies } from './status-reply.ts';
import { TraceRing } from './trace-ring.ts';
import { WaitingClients } from './waiting-clients.ts';

const EVENTS_PER_WAIT = 256;
/** How long a ragged write waits before it looks whether another lane is done. */
const LOOK_AGAIN_MS = 1;
/** How often clients are looked at while others wait for pages or operations. */
const MAKE_ROOM_MS = 10;
/** How often they are looked at for whether they have moved at all. */
const CHECK_PROGRESS_MS = 1000;

// Epoll tokens; connections count up from the last.
const TOKEN_CONTROL = 0;
const TOKEN_RING = 1;
const TOKEN_GUESTS = 2;
const TOKEN_FIRST_CONNECTION = 3;

class Lane implements LaneCore {
  readonly engine: Engine;
  readonly pool: PagePool;
  readonly buffers = new ReceiveBuffers(RECEIVE_BUFFER_BYTES);
  readonly iovec = new Iovec();
  readonly headers: Memory & { readonly view: DataView };
  readonly statusReplies: StatusReplies;
  readonly limits: LaneLimits;
  readonly counters: Counters;
  readonly trace: TraceRing | undefined;
  isDraining = false;
  nowUs = 0;

  readonly #config: LaneConfig;
  readonly #ring: RingRequests;
  readonly #channels: EventChannelModule;
  #channel: EventChannel;
  readonly #zeroPool: PagePool;
  readonly #indirectPool: PagePool | undefined;
  readonly #epoll = new Epoll(EVENTS_PER_WAIT);
  /** Connections by token; freed places are used again. */
  readonly #connections: (NbdConnection | undefined)[] = [];
  readonly #freePlaces: number[] = [];
  readonly #placeOf = new Map<NbdConnection, number>();
  #dirty = new ConnectionList();
  #dirtyNext = new ConnectionList();
  #awake = new ConnectionList();
  #awakeNext = new ConnectionList();
  readonly #waiting: WaitingClients;
  /** Lanes that share our ring. */
  #guests: GuestRings | undefined;
  readonly #clock = new MonotonicClock();
  readonly #busyPoll: BusyPoll;
  #isStopping = false;
  #isBroken = false;
  #isMasked = false;
  readonly #spurious = new SpuriousEvents();
  /** The channel stays masked until then. */
  #unmaskAtMs = 0;
  #isSuspended = false;
  /** Somebody waits for the word `quiet`. */
  #isHeld = false;
  #hasDrained = false;
  /** Before that, clients are not looked at again. */
  #checkAtMs = 0;
  #makeRoomAtMs = 0;

  constructor(config: LaneConfig, channels: EventChannelModule) {
    this.#config = config;
    this.#busyPoll = new BusyPoll(config.busyPollUs);
    this.#channels = channels;
    this.#channel = channels.openEventChannel(config.ring.eventChannel);
    this.limits = config.limits;
    this.counters = new Counters(config.counters);
    this.trace = config.trace && new TraceRing(config.trace);
    this.pool = new PagePool(config.pool);
    this.#zeroPool = new PagePool(config.zeroPool);
    this.#indirectPool = config.indirectPool && new PagePool(config.indirectPool);
    this.#ring = new RingRequests(config.ring, config.disk, {
      pool: this.pool,
      zeroPool: this.#zeroPool,
      indirectPool: this.#indirectPool,
    });
    const contexts = new LaneContexts(config.contexts);
    this.statusReplies = new StatusReplies(contexts);
    this.engine = new Engine(
      {
        disk: config.disk,
        ranges: config.ranges,
        laneIndex: config.index,
        spillLimitBytes: config.limits.spillBytes,
        sharedMax: config.limits.operations,
        bytesMax: config.limits.bytes,
      },
      {
        ring: this.#ring,
        pool: this.pool,
        zeroPool: this.#zeroPool,
        counters: this.counters,
        contexts,
      },
    );
    this.#waiting = new WaitingClients(this.engine);
    const headers = allocateMemory(config.ranges.operationCount * HEADER_SLOT_BYTES);
    this.headers = { ...headers, view: new DataView(headers.buffer) };
    this.#epoll.add(config.controlFd, EPOLLIN, TOKEN_CONTROL);
    this.#epoll.add(this.#channel.fd, EPOLLIN, TOKEN_RING);
  }

  /** Works until it is told to stop. */
  run(): void {
    send({ type: 'ready' });
    while (!this.#isStopping) this.#turn();
    for (const connection of this.#connections) connection?.close('server stops');
    this.#epoll.close();
  }

  #turn(): void {
    const count = this.#wait();
    const { values } = this.counters;
    this.nowUs = this.#clock.us;
    this.#clock.storeMs(values, Counter.CLOCK_MS_NOW);
    if (this.#isCramped()) this.#makeRoom(values[Counter.CLOCK_MS_NOW]);
    if (this.#isShort()) this.#checkProgress(values[Counter.CLOCK_MS_NOW]);
    this.counters.add(Counter.TURNS, 1);
    const hasRingEvent = this.#takeRingEvent(count);
    const responses = this.#collect();
    if (hasRingEvent) this.#noteEvent(responses);
    for (let i = 0; i < count; i++) this.#handle(this.#epoll.tokenAt(i), this.#epoll.eventsAt(i));
    this.#resumeAwake();
    // Whatever of the above gave back pages or slots, somebody may be waiting for them.
    if (!this.#isBroken) this.engine.pump();
    this.#publish();
    this.#sendReplies();
    // Operations come back with their replies, or without any when their clients have left.
    this.#waiting.wakeFirst();
    if (this.isDraining) this.#watchDrain();
    if (this.#isHeld) this.#watchQuiet();
    this.#count();
  }

  /** What others may like to know; a few numbers for a whole turn. */
  #count(): void {
    const { values } = this.counters;
    values[Counter.RING_REQUESTS] = this.#ring.requestCount;
    values[Counter.RELAYED_REQUESTS] = this.#ring.relayedCount;
    values[Counter.JOINED_REQUESTS] = this.#ring.joinedCount;
    values[Counter.SLOTS_USED_NOW] = this.#ring.slotsUsed;
    values[Counter.PAGES_USED_NOW] = this.pool.pageCount - this.pool.freeCount;
  }

  /** Waits for something to do, awake at first where that pays; returns how many events came. */
  #wait(): number {
    const clock = this.#clock;
    clock.read();
    if (this.#busyPoll.begin(clock.us) && this.#mayPoll) {
      do {
        const count = this.#epoll.wait(0);
        if (count > 0 || (!this.#isBroken && this.#ring.pending() !== 0)) {
          this.#busyPoll.found();
          clock.read();
          return count;
        }
        yieldProcessor();
        clock.read();
      } while (this.#busyPoll.goesOn(clock.us));
    }
    const count = this.#epoll.wait(this.#timeoutMs());
    clock.read();
    this.#busyPoll.woken(clock.us);
    return count;
  }

  /** Whether all that could come now can be seen while looking, and nothing is left to do. */
  get #mayPoll(): boolean {
    return this.#awake.count === 0 && this.#dirty.count === 0 && this.#guests === undefined;
  }

  #timeoutMs(): number {
    if (!this.#mayBlock()) return 0;
    if (this.engine.mustLookAgain) return LOOK_AGAIN_MS;
    if (this.#isCramped()) return MAKE_ROOM_MS;
    if (this.#isMasked && !this.#isBroken) return this.#spurious.delayMs;
    return this.#isShort() ? CHECK_PROGRESS_MS : -1;
  }

  /** Whether requests wait for pages or operations, which clients may hold that do not move. */
  #isCramped(): boolean {
    const isOpen = !this.#isBroken && !this.#isSuspended && !this.#isHeld;
    return isOpen && (this.engine.isStarved || !this.#waiting.isEmpty);
  }

  /** Whether nothing is left to do before the next event. */
  #mayBlock(): boolean {
    if (this.#awake.count > 0 || this.#dirty.count > 0) return false;
    if (this.#isBroken) return true;
    if (this.#ring.inFlight > 0 && this.#ring.finalCheck()) return false;
    if (this.#guests?.finalCheck() === true) return false;
    // Only now may the backend wake us again. An event that came while the channel was masked was
    // for a response that finalCheck has just looked for, or it is pending and wakes us at once.
    if (this.#isMasked && this.counters.get(Counter.CLOCK_MS_NOW) >= this.#unmaskAtMs) {
      this.#isMasked = false;
      this.#channel.unmask();
    }
    return true;
  }

  /**
   * Takes back what is held for clients that stand still. Not at once, since a client that is about
   * to read its reply gives it back sooner than it can be copied.
   */
  #makeRoom(nowMs: number): void {
    if (nowMs < this.#makeRoomAtMs) return;
    this.#makeRoomAtMs = nowMs + MAKE_ROOM_MS;
    for (const connection of this.#connections) connection?.makeRoom();
  }

  /** Whether somebody waits for what clients may hold that do not move. */
  #isShort(): boolean {
    return this.engine.isShortOfSpill || !this.#waiting.isEmpty;
  }

  #checkProgress(nowMs: number): void {
    if (nowMs < this.#checkAtMs) return;
    this.#checkAtMs = nowMs + CHECK_PROGRESS_MS;
    for (const connection of this.#connections) connection?.checkProgress(nowMs);
  }

  /** Returns whether there was one. */
  #takeRingEvent(count: number): boolean {
    if (this.#isSuspended) return false;
    for (let i = 0; i < count; i++) {
      if (this.#epoll.tokenAt(i) !== TOKEN_RING || !this.#channel.consume()) continue;
      this.#isMasked = true;
      this.counters.add(Counter.RING_EVENTS, 1);
      return true;
    }
    return false;
  }

  #noteEvent(responses: number): void {
    this.#spurious.came(responses);
    this.#unmaskAtMs = this.counters.get(Counter.CLOCK_MS_NOW) + this.#spurious.delayMs;
  }

  /** Returns how many responses there were. */
  #collect(): number {
    if (this.#isBroken) return 0;
    const count = this.engine.collect();
    if (count < 0) {
      this.#breakDown(this.#ring.fault ?? 'it broke the ring protocol');
      return 0;
    }
    this.engine.pump();
    return count;
  }

  #breakDown(fault: string): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    // The channel stays masked from here on: a storm of events from a broken backend costs nothing.
    this.#isMasked = true;
    this.engine.breakDown();
    send({ type: 'broken', fault });
  }

  #handle(token: number, events: number): void {
    if (token === TOKEN_CONTROL) {
      this.#takeMessages();
      return;
    }
    if (token === TOKEN_RING) return;
    if (token === TOKEN_GUESTS) {
      this.#guests?.consumeEvent();
      return;
    }
    const connection = this.#connections[token - TOKEN_FIRST_CONNECTION];
    if (connection === undefined) return;
    if ((events & EPOLLIN) !== 0) connection.onReadable();
    if ((events & EPOLLOUT) !== 0 && !connection.isClosed) connection.onWritable();
    // The peer is gone altogether: nobody will read what is still owed to it.
    if ((events & (EPOLLERR | EPOLLHUP)) !== 0 && (events & EPOLLIN) === 0) {
      connection.close('client left without disconnecting');
    }
  }

  #resumeAwake(): void {
    // A connection that is woken again while it runs is dealt with in the next turn.
    const awake = this.#awake;
    if (awake.count === 0) return;
    this.#awake = this.#awakeNext;
    this.#awakeNext = awake;
    for (let i = 0; i < awake.count; i++) awake.take(i)?.resume();
    awake.count = 0;
  }

  #publish(): void {
    if (this.#isBroken) return;
    this.#guests?.publish();
    if (!this.#ring.publish()) return;
    this.counters.add(Counter.RING_NOTIFICATIONS, 1);
    this.#channel.notify();
  }

  #sendReplies(): void {
    const dirty = this.#dirty;
    if (dirty.count === 0) return;
    this.#dirty = this.#dirtyNext;
    this.#dirtyNext = dirty;
    for (let i = 0; i < dirty.count; i++) dirty.take(i)?.flushReplies();
    dirty.count = 0;
    // Replies that have left gave back pages for which others may be waiting.
    if (!this.#isBroken) {
      this.engine.pump();
      this.#publish();
    }
  }

  // --- messages

  #takeMessages(): void {
    drainEventFd(this.#config.controlFd);
    for (;;) {
      const received = receiveMessageOnPort(port);
      if (received === undefined) return;
      this.#takeMessage(received.message as LaneMessage);
    }
  }

  #takeMessage(message: LaneMessage): void {
    switch (message.type) {
      case 'adopt':
        this.#adopt(message);
        return;
      case 'drain':
        this.isDraining = true;
        for (const connection of this.#connections) connection?.drain();
        return;
      case 'break-down':
        this.#breakDown('the device is gone');
        return;
      case 'hold':
        this.#isHeld = true;
        this.#ring.hold();
        this.#watchQuiet();
        return;
      case 'suspend':
        this.#suspend();
        return;
      case 'evacuate':
        for (const pool of [this.pool, this.#zeroPool, this.#indirectPool]) pool?.evacuate();
        send({ type: 'evacuated' });
        return;
      case 'resume':
        this.#resume(message);
        return;
      case 'stop':
        this.#isStopping = true;
    }
  }

  #watchQuiet(): void {
    if (this.#ring.inFlight > 0) return;
    this.#isHeld = false;
    send({ type: 'quiet' });
  }

  /** The ring is lost. Clients stay; what they ask for waits. */
  #suspend(): void {
    if (!this.#isSuspended) {
      this.#isSuspended = true;
      this.#ring.suspend();
      this.#epoll.remove(this.#channel.fd);
      this.#setGuests(undefined);
      this.#isMasked = false;
    }
    send({ type: 'suspended' });
  }

  #resume(message: Extract<LaneMessage, { type: 'resume' }>): void {
    const { ring, disk, pool, zeroPool, indirectPool, guests } = message;
    if (pool !== undefined) this.pool.rebase(pool);
    if (zeroPool !== undefined) this.#zeroPool.rebase(zeroPool);
    if (indirectPool !== undefined) this.#indirectPool?.rebase(indirectPool);
    this.#channel = isPrivateChannel(ring.eventChannel)
      ? openPrivateChannel(ring.eventChannel)
      : this.#channels.openEventChannel(ring.eventChannel);
    this.#epoll.add(this.#channel.fd, EPOLLIN, TOKEN_RING);
    this.#isSuspended = false;
    this.counters.add(Counter.RECOVERIES, 1);
    this.engine.diskChanged(disk);
    this.#ring.resume(ring, disk);
    this.#setGuests(guests);
    this.engine.pump();
    this.#publish();
    send({ type: 'resumed' });
  }

  #setGuests(list: GuestList | undefined): void {
    if (this.#guests !== undefined) this.#epoll.remove(this.#guests.hostFd);
    this.#guests = list && new GuestRings(list, this.#ring);
    this.engine.setGuests(this.#guests);
    if (list !== undefined) this.#epoll.add(list.hostFd, EPOLLIN, TOKEN_GUESTS);
  }

  #adopt(message: Extract<LaneMessage, { type: 'adopt' }>): void {
    const { connectionId, fd, info, agreement } = message;
    enlargeSendBuffer(fd, SEND_BUFFER_BYTES);
    const connection = new NbdConnection(this, connectionId, fd, info, agreement);
    const place = this.#freePlaces.pop() ?? this.#connections.length;
    this.#connections[place] = connection;
    this.#placeOf.set(connection, place);
    this.#epoll.add(fd, connection.events, TOKEN_FIRST_CONNECTION + place);
    this.counters.add(Counter.CLIENTS_NOW, 1);
    connection.adoptBytes(message.bytes);
    if (this.isDraining) connection.drain();
  }

  /** While draining: once nobody is served any more, makes the disk stable and says so. */
  #watchDrain(): void {
    if (this.#hasDrained || this.#placeOf.size > 0 || !this.engine.isIdle) return;
    this.#hasDrained = true;
    const operation = this.engine.take();
    if (operation === undefined) return;
    operation.requester = new FinalFlush((flushed) => {
      const { errno } = flushed;
      this.release(flushed);
      send({ type: 'drained', errno });
    });
    this.engine.startFlush(operation);
    this.engine.pump();
    this.#publish();
  }

  // --- LaneCore

  markDirty(connection: NbdConnection): void {
    this.#dirty.push(connection);
  }

  markAwake(connection: NbdConnection): void {
    this.#awake.push(connection);
  }

  takeOperation(
    connection: NbdConnection,
    lengthBytes: number,
    isOwn: boolean,
  ): Operation | undefined {
    const operation = this.#waiting.take(connection, lengthBytes, isOwn);
    if (operation === undefined) this.counters.add(Counter.OPERATION_WAITS, 1);
    return operation;
  }

  stopWaiting(connection: NbdConnection): void {
    this.#waiting.remove(connection);
  }

  release(operation: Operation): void {
    this.engine.release(operation);
  }

  abandonAll(connection: NbdConnection): void {
    this.engine.abandonAll(connection);
  }

  watch(connection: NbdConnection, events: number): void {
    const place = this.#placeOf.get(connection);
    if (place !== undefined) {
      this.#epoll.modify(connection.fd, events, TOKEN_FIRST_CONNECTION + place);
    }
  }

  connectionClosed(connection: NbdConnection, reason: CloseReason): void {
    const place = this.#placeOf.get(connection);
    if (place === undefined) return;
    this.#placeOf.delete(connection);
    this.#waiting.remove(connection);
    this.#connections[place] = undefined;
    this.#freePlaces.push(place);
    this.#epoll.remove(connection.fd);
    libc.close(connection.fd);
    this.counters.add(Counter.CLIENTS_NOW, -1);
    send({
      type: 'closed',
      connectionId: connection.id,
      reason,
      requestCount: connection.requestCount,
    });
  }
}

if (parentPort === null) throw new Error('lane-worker is started as a worker thread');
const port = parentPort;

function send(event: LaneEvent): void {
  port.postMessage(event);
}

const config = workerData as LaneConfig;
setThreadName(config.name);
scheduleInBatches();
const channels = (await import(config.ring.eventChannel.moduleUrl)) as EventChannelModule;
new Lane(config, channels).run();
