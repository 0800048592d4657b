/**
 * A lane without a thread: the loop of src/dataplane/lane-worker.ts, one turn at a time, over the
 * same engine, ring and connections. It sleeps as that one does: a turn comes only when an event
 * channel, a socket or an order asks for it, so that a lost wake-up is a history that hangs.
 */

import type { CloseReason } from '../../src/dataplane/close-reason.ts';
import { Counters } from '../../src/dataplane/counters.ts';
import { Engine } from '../../src/dataplane/engine.ts';
import { type GuestList, GuestRings } from '../../src/dataplane/guest-rings.ts';
import type { Iovec } from '../../src/dataplane/iovec.ts';
import type { LaneLimits } from '../../src/dataplane/lane-config.ts';
import { LaneContexts } from '../../src/dataplane/lane-contexts.ts';
import type { LaneCore } from '../../src/dataplane/lane-core.ts';
import { NbdConnection } from '../../src/dataplane/nbd-connection.ts';
import type { Operation, Requester } from '../../src/dataplane/operation.ts';
import { PagePool } from '../../src/dataplane/page-pool.ts';
import type { ReceiveBuffers } from '../../src/dataplane/receive-buffers.ts';
import { RingRequests } from '../../src/dataplane/ring-requests.ts';
import { StatusReplies } from '../../src/dataplane/status-reply.ts';
import { WaitingClients } from '../../src/dataplane/waiting-clients.ts';
import { EPOLLIN, EPOLLOUT } from '../../src/sys/index.ts';
import { AbandonedOperations } from './abandoned-operations.ts';
import { type Doorbell, isReadable, openDoorbell } from './doorbell.ts';
import { LanePlaces } from './lane-places.ts';
import {
  headerArea,
  type Order,
  receiveBuffers,
  type SimulatedLaneConfig,
  sharedIovec,
} from './lane-setup.ts';
import type { NbdRequester } from './nbd-requester.ts';
import type { Scheduler } from './scheduler.ts';

/** How long a ragged write waits before it looks whether another lane is done. */
const LOOK_AGAIN_MS = 1;
/** How often clients are looked at while others wait for pages or operations. */
const MAKE_ROOM_MS = 10;
/** How often they are looked at for whether they have moved at all. */
const CHECK_PROGRESS_MS = 1000;
export class SimulatedLane implements LaneCore {
  readonly index: number;
  readonly engine: Engine;
  readonly pool: PagePool;
  readonly zeroPool: PagePool;
  readonly indirectPool: PagePool | undefined;
  readonly ring: RingRequests;
  readonly buffers: ReceiveBuffers;
  readonly iovec: Iovec = sharedIovec;
  readonly headers: LaneCore['headers'];
  readonly statusReplies: StatusReplies;
  readonly limits: LaneLimits;
  readonly counters: Counters = new Counters();
  readonly nowUs = 0;
  isDraining = false;
  isBroken = false;
  /** The main thread has ended it, or the process is dead. */
  isStopped = false;
  /** The guest does not run. */
  isPaused = false;
  /** Each operation that a connection has taken. */
  readonly operations: Set<Operation> = new Set();
  readonly #config: SimulatedLaneConfig;
  readonly #scheduler: Scheduler;
  #doorbell: Doorbell;
  #guests: GuestRings | undefined;
  readonly #orders: Order[] = [];
  readonly #places = new LanePlaces();
  #dirty: NbdConnection[] = [];
  readonly #awake: NbdConnection[] = [];
  readonly #waiting: WaitingClients;
  readonly #abandoned = new AbandonedOperations();
  #quiet: (() => void) | undefined;
  #drained: ((errno: number) => void) | undefined;
  #isMasked = false;
  #isSuspended = false;
  #isHeld = false;
  #isScheduled = false;
  #mustGoOn = false;
  #makeRoomAtMs = 0;
  #checkAtMs = 0;
  #cancelTimer: (() => void) | undefined;
  turns = 0;
  /** Clients that were given to it and have not left, as Lane counts them. */
  clientCount = 0;

  constructor(config: SimulatedLaneConfig) {
    const { index, ring, disk, memory, limits, ranges } = config;
    const contexts = new LaneContexts(config.contexts);
    this.statusReplies = new StatusReplies(contexts);
    this.#config = config;
    this.#scheduler = config.scheduler;
    this.index = index;
    this.limits = limits;
    this.#doorbell = openDoorbell(ring.eventChannel);
    this.buffers = receiveBuffers(config.receiveBufferBytes);
    this.headers = headerArea(index);
    this.pool = new PagePool(memory.pool);
    this.zeroPool = new PagePool(memory.zeroPool);
    this.indirectPool = memory.indirectPool && new PagePool(memory.indirectPool);
    const pools = { pool: this.pool, zeroPool: this.zeroPool, indirectPool: this.indirectPool };
    this.ring = new RingRequests(ring, disk, pools);
    this.engine = new Engine(
      {
        disk,
        ranges,
        laneIndex: index,
        spillLimitBytes: limits.spillBytes,
        sharedMax: limits.operations,
        bytesMax: limits.bytes,
      },
      {
        ring: this.ring,
        pool: this.pool,
        zeroPool: this.zeroPool,
        counters: this.counters,
        contexts,
      },
    );
    const take = this.engine.take.bind(this.engine);
    this.engine.take = (lengthBytes, isOwn) => {
      const operation = take(lengthBytes, isOwn);
      if (operation !== undefined) this.operations.add(operation);
      return operation;
    };
    this.#waiting = new WaitingClients(this.engine);
  }

  /** Who is at the other end of a connection. */
  clientOf(connection: NbdConnection): NbdRequester | undefined {
    return this.#places.clientOf(connection);
  }

  /** Ends it. Whoever waits for an order to be carried out is told, as by the end of a thread. */
  stop(): void {
    this.isStopped = true;
    for (const order of this.#orders.splice(0)) this.#endOrder(order);
    this.#quiet?.();
  }

  #endOrder(order: Order): void {
    this.#scheduler.touch();
    if (order.type === 'drain') order.done(0);
    else if ('done' in order) order.done();
  }

  /** Gives an order; it is carried out in a later turn. */
  order(order: Order): void {
    if (order.type === 'adopt') this.clientCount += 1;
    this.#scheduler.soon(() => {
      if (this.isStopped) {
        this.#endOrder(order);
        return;
      }
      this.#orders.push(order);
      this.poke();
    });
  }

  /** Has a turn soon, if there is any reason for one. */
  poke(): void {
    if (this.#isScheduled || this.isStopped || this.isPaused || !this.#isReady()) return;
    this.#isScheduled = true;
    this.#scheduler.soon(() => this.#turn());
  }

  #isReady(): boolean {
    if (this.#mustGoOn || this.#orders.length > 0) return true;
    if (!this.#isSuspended && this.#doorbell.isRung()) return true;
    if (this.#guests !== undefined && isReadable(this.#guests.hostFd)) return true;
    return this.#places.ready().length > 0;
  }

  #turn(): void {
    this.#isScheduled = false;
    if (this.isStopped || this.isPaused) return;
    this.turns += 1;
    this.#mustGoOn = false;
    this.#cancelTimer?.();
    const ready = this.#places.ready();
    const hasEvent = !this.#isSuspended && this.#doorbell.isRung();
    this.#guests?.consumeEvent();
    if (this.#isCramped()) this.#makeRoom();
    if (this.#isShort()) this.#checkProgress();
    if (hasEvent && this.#doorbell.channel.consume()) this.#isMasked = true;
    this.#collect();
    for (const order of this.#orders.splice(0)) this.#obey(order);
    for (const { connection, events, isHungUp } of ready) this.#serve(connection, events, isHungUp);
    for (const connection of this.#awake.splice(0)) connection.resume();
    if (!this.isBroken) this.engine.pump();
    this.#publish();
    this.#sendReplies();
    this.#waiting.wakeFirst();
    if (this.isDraining) this.#watchDrain();
    if (this.#isHeld) this.#watchQuiet();
    this.#abandoned.look();
    this.#prepareToSleep();
    this.poke();
  }

  /** Before the wait of the next turn: whether to wait, and for how long at the most. */
  #prepareToSleep(): void {
    const timeoutMs = this.#timeoutMs();
    if (timeoutMs === 0) {
      this.#mustGoOn = true;
    } else if (timeoutMs > 0) {
      this.#cancelTimer = this.#scheduler.after(timeoutMs, () => {
        this.#mustGoOn = true;
        this.poke();
      });
    }
  }

  #timeoutMs(): number {
    if (!this.#mayBlock()) return 0;
    if (this.engine.mustLookAgain) return LOOK_AGAIN_MS;
    if (this.#isCramped()) return MAKE_ROOM_MS;
    return this.#isShort() ? CHECK_PROGRESS_MS : -1;
  }

  #isCramped(): boolean {
    const isOpen = !this.isBroken && !this.#isSuspended && !this.#isHeld;
    return isOpen && (this.engine.isStarved || !this.#waiting.isEmpty);
  }

  #mayBlock(): boolean {
    if (this.#awake.length > 0 || this.#dirty.length > 0) return false;
    if (this.isBroken) return true;
    if (this.ring.inFlight > 0 && this.ring.finalCheck()) return false;
    if (this.#guests?.finalCheck() === true) return false;
    if (this.#isMasked) {
      this.#isMasked = false;
      this.#doorbell.channel.unmask();
    }
    return true;
  }

  #makeRoom(): void {
    if (this.#scheduler.nowMs() < this.#makeRoomAtMs) return;
    this.#makeRoomAtMs = this.#scheduler.nowMs() + MAKE_ROOM_MS;
    for (const connection of this.#places.connections()) connection.makeRoom();
  }

  #isShort(): boolean {
    return this.engine.isShortOfSpill || !this.#waiting.isEmpty;
  }

  #checkProgress(): void {
    if (this.#scheduler.nowMs() < this.#checkAtMs) return;
    this.#checkAtMs = this.#scheduler.nowMs() + CHECK_PROGRESS_MS;
    for (const connection of this.#places.connections())
      connection.checkProgress(this.#scheduler.nowMs());
  }

  #collect(): void {
    if (this.isBroken) return;
    if (this.engine.collect() < 0) {
      this.#breakDown(this.ring.fault ?? 'it broke the ring protocol');
      return;
    }
    this.engine.pump();
  }

  #breakDown(fault: string): void {
    if (this.isBroken) return;
    this.isBroken = true;
    this.#isMasked = true;
    this.engine.breakDown();
    this.#config.broken(fault);
  }

  #serve(connection: NbdConnection, events: number, isHungUp: boolean): void {
    if (this.#places.clientOf(connection) === undefined) return;
    if ((events & EPOLLIN) !== 0) connection.onReadable();
    if ((events & EPOLLOUT) !== 0 && !connection.isClosed) connection.onWritable();
    if (isHungUp && (events & EPOLLIN) === 0) {
      connection.close('client left without disconnecting');
    }
  }

  #publish(): void {
    if (this.isBroken) return;
    this.#guests?.publish();
    if (this.ring.publish()) this.#doorbell.channel.notify();
    else if (this.#guests === undefined) return;
    this.#config.notified();
  }

  #sendReplies(): void {
    const dirty = this.#dirty;
    if (dirty.length === 0) return;
    this.#dirty = [];
    for (const connection of dirty) connection.flushReplies();
    if (!this.isBroken) {
      this.engine.pump();
      this.#publish();
    }
  }

  // --- orders

  #obey(order: Order): void {
    this.#scheduler.trace(`lane ${this.index}`, order.type);
    this.#scheduler.touch();
    switch (order.type) {
      case 'adopt':
        this.#adopt(order.client);
        return;
      case 'drain':
        this.isDraining = true;
        this.#drained = order.done;
        for (const connection of this.#places.connections()) connection.drain();
        return;
      case 'break-down':
        this.#breakDown('the device is gone');
        return;
      case 'hold':
        this.#isHeld = true;
        this.#quiet = order.done;
        this.ring.hold();
        this.#watchQuiet();
        return;
      case 'suspend':
        if (!this.#isSuspended) {
          this.#isSuspended = true;
          this.ring.suspend();
          this.#setGuests(undefined);
          this.#isMasked = false;
        }
        order.done();
        return;
      case 'evacuate':
        for (const pool of [this.pool, this.zeroPool, this.indirectPool]) pool?.evacuate();
        order.done();
        return;
      case 'resume':
        this.#resume(order);
        order.done();
        return;
      default:
        order satisfies never;
    }
  }

  #setGuests(list: GuestList | undefined): void {
    this.#guests = list && new GuestRings(list, this.ring);
    this.engine.setGuests(this.#guests);
  }

  #resume({ ring, disk, memory, guests }: Extract<Order, { type: 'resume' }>): void {
    if (memory !== undefined) {
      this.pool.rebase(memory.pool);
      this.zeroPool.rebase(memory.zeroPool);
      if (memory.indirectPool !== undefined) this.indirectPool?.rebase(memory.indirectPool);
    }
    this.#doorbell = openDoorbell(ring.eventChannel);
    this.#isSuspended = false;
    this.engine.diskChanged(disk);
    this.ring.resume(ring, disk);
    this.#setGuests(guests);
    this.engine.pump();
    this.#publish();
  }

  #adopt(client: NbdRequester): void {
    const { id, socket, info, agreement } = client;
    const connection = new NbdConnection(this, id, socket.fd, info, agreement);
    this.#places.add(connection, client);
    connection.adoptBytes(new Uint8Array(0));
    if (this.isDraining) connection.drain();
  }

  #watchQuiet(): void {
    if (this.ring.inFlight > 0) return;
    this.#isHeld = false;
    this.#scheduler.touch();
    this.#quiet?.();
  }

  #watchDrain(): void {
    const { engine } = this;
    if (this.#drained === undefined || this.#places.size > 0 || !engine.isIdle) return;
    const done = this.#drained;
    this.#drained = undefined;
    const operation = engine.take();
    if (operation === undefined) return;
    const requester: Requester = {
      replyReady: (flush) => {
        const { errno } = flush;
        engine.release(flush);
        this.#scheduler.touch();
        done(errno);
      },
      payloadWanted: () => undefined,
      payloadRefused: () => undefined,
    };
    operation.requester = requester;
    engine.startFlush(operation);
    engine.pump();
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
    return this.#waiting.take(connection, lengthBytes, isOwn);
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
    this.#places.watch(connection, events);
  }

  connectionClosed(connection: NbdConnection, reason: CloseReason): void {
    const client = this.#places.remove(connection);
    if (client === undefined) return;
    this.#waiting.remove(connection);
    this.clientCount -= 1;
    client.socket.close();
    client.closed(reason);
    this.#abandoned.add(client, this.operations);
  }
}
