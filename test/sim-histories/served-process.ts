/**
 * The program under test as one process of the guest: a front end, its lanes and their pages, wired
 * as src/daemon/vbd-device.ts wires them, without threads. A process may die at any moment, and
 * another take its place.
 */

import type { ExportInfo } from 'nbd-server-ts/protocol';
import { XenStoreClient } from 'xenstore-client';
import { hostAbi, RING_SECTOR_BYTES } from '../../src/blkif/index.ts';
import {
  describeExport,
  diskShape,
  laneRing,
  memoryOf,
} from '../../src/daemon/attachment-shape.ts';
import { SharedQueues } from '../../src/daemon/shared-queues.ts';
import { LaneContexts, type SharedContexts } from '../../src/dataplane/lane-contexts.ts';
import { createSharedRanges, type SharedRanges } from '../../src/dataplane/range-lock.ts';
import { createZeroMap } from '../../src/dataplane/zero-map.ts';
import {
  type Attachment,
  type Clock,
  type DetachReason,
  describeVbd,
  Frontend,
  type FrontendEnd,
} from '../../src/frontend/index.ts';
import type { GrantAccess, GrantedPages } from '../../src/host/index.ts';
import { viewMemory } from '../../src/sys/index.ts';
import { type Environment, VBD_ID } from './environment.ts';
import type { NbdRequester } from './nbd-requester.ts';
import { SimulatedLane } from './simulated-lane.ts';

interface LanePages {
  readonly pool: GrantedPages;
  readonly zeroes: GrantedPages;
  readonly indirect: GrantedPages | undefined;
}

export interface ProcessEvents {
  /** A lane is broken: the back end did what it may not do. */
  broken(fault: string): void;
  /** A connection stands, the first or a later one, and the lanes are about to use it. */
  attached(process: ServedProcess, attachment: Attachment): void;
  ended(end: FrontendEnd): void;
  failed(error: Error): void;
}

export interface ProcessOptions {
  readonly environment: Environment;
  /** The guest's clock, which stands while the guest does. */
  readonly clock: Clock;
  readonly poke: () => void;
  readonly events: ProcessEvents;
  /** Called with each lane before it is used: mutants are put in here. */
  readonly prepare: (lane: SimulatedLane) => void;
  readonly prepareStore: (store: XenStoreClient) => void;
}

export class ServedProcess {
  readonly #options: ProcessOptions;
  readonly lanes: SimulatedLane[] = [];
  ranges: SharedRanges | undefined;
  frontend: Frontend | undefined;
  #store: XenStoreClient | undefined;
  #pages: LanePages[] = [];
  #lastOrder: Promise<void> = Promise.resolve();
  #info: ExportInfo | undefined;
  #shared: SharedContexts = [];
  #contexts: LaneContexts | undefined;
  #sharedQueues: SharedQueues | undefined;
  #access: GrantAccess = 'read-only';
  isDead = false;
  end: FrontendEnd | undefined;
  recoveries = 0;
  /** The lanes have a ring that was not lost. */
  isServing = false;

  constructor(options: ProcessOptions) {
    this.#options = options;
  }

  /** What a client that connects now is told. */
  get info(): ExportInfo | undefined {
    return this.#info;
  }

  async start(): Promise<void> {
    const { environment, clock, events } = this.#options;
    const { guest, scheduler, plan } = environment;
    const { lanes } = this;
    const store = new XenStoreClient(await guest.openXenStore());
    this.#store = store;
    this.#options.prepareStore(store);
    const log = (message: string): void => scheduler.trace('frontend', message);
    this.frontend = new Frontend({
      host: guest,
      store,
      vbd: await describeVbd(store, VBD_ID),
      want: {
        // One for each lane, once there are lanes.
        get queues() {
          return lanes.length === 0 ? plan.queues : lanes.length;
        },
        ringPageOrder: plan.ringPageOrder,
        maxIndirectSegments: plan.maxIndirectSegments,
        isPersistent: true,
      },
      abi: hostAbi('x64'),
      viewMemory,
      clock,
      isReturnAwaited: plan.isReturnAwaited,
      log: { debug: log, info: log, warn: log },
      events: {
        backendClosing: () => this.#backendClosing(),
        detached: (reason) => this.#detached(reason),
        reattached: (attachment) => this.#reattached(attachment),
        resized: (sectors) => this.#resized(sectors),
        orphaned: (channels) => scheduler.trace('process', `keeps ${channels.length} dead ports`),
        ended: (end) => {
          if (this.isDead) return;
          this.end = end;
          if (end.reason !== 'closed') {
            for (const lane of this.lanes) lane.order({ type: 'break-down' });
          }
          events.ended(end);
        },
      },
    });
    this.#startLanes(await this.frontend.attach());
  }

  /** Gives a client to the lane with the fewest. */
  adopt(client: NbdRequester): void {
    let chosen = this.lanes[0];
    for (const lane of this.lanes) {
      if (chosen === undefined || lane.clientCount < chosen.clientCount) chosen = lane;
    }
    chosen?.order({ type: 'adopt', client });
  }

  /** Finishes what is in progress and flushes; resolves to the errors of the last flushes. */
  async drain(): Promise<number[]> {
    return await Promise.all(
      this.lanes.map((lane) => new Promise<number>((done) => lane.order({ type: 'drain', done }))),
    );
  }

  /** Ends the lanes and closes the vbd. */
  async close(): Promise<FrontendEnd | undefined> {
    for (const lane of this.lanes) lane.stop();
    this.#sharedQueues?.free();
    const end = await this.frontend?.close();
    this.#options.environment.guest.isWatching = false;
    if (end?.isBackendFinished === true) {
      for (const pages of this.#pages) revoke(pages);
      this.#pages = [];
    }
    await this.#store?.close();
    return end;
  }

  /** Dies as by kill -9. */
  die(): void {
    this.isDead = true;
    for (const lane of this.lanes) lane.isStopped = true;
    this.#sharedQueues?.free();
    this.#options.environment.guest.exit();
    this.#store?.close().catch(() => undefined);
  }

  #startLanes(attachment: Attachment): void {
    const { environment, events, poke, prepare } = this.#options;
    const { scheduler, plan } = environment;
    events.attached(this, attachment);
    this.#access = attachment.isPersistent ? 'read-write' : 'read-only';
    this.#pages = attachment.queues.map(() => this.#grant(attachment));
    this.ranges = createSharedRanges(attachment.queues.length, plan.operations);
    // Small chunks, so that a zeroing covers some of them.
    this.#shared = [createZeroMap(attachment.disk.sectors * RING_SECTOR_BYTES, 4096)];
    this.#contexts = new LaneContexts(this.#shared);
    for (const [index, pages] of this.#pages.entries()) {
      const lane = new SimulatedLane({
        index,
        scheduler,
        disk: diskShape(attachment),
        ring: laneRing(attachment, index, pages.indirect !== undefined),
        memory: memoryOfLane(pages),
        limits: {
          operationsPerConnection: plan.operationsPerConnection,
          operations: plan.sharedOperations,
          bytesPerConnection: plan.bytesPerConnection,
          bytes: plan.bytes,
          ownBytes: plan.ownBytes,
          spillBytes: plan.spillBytes,
        },
        ranges: this.ranges,
        contexts: this.#shared,
        receiveBufferBytes: plan.receiveBufferBytes,
        notified: poke,
        broken: (fault) => {
          events.broken(fault);
          // What one lane has found out holds for all of them.
          for (const other of this.lanes) other.order({ type: 'break-down' });
        },
      });
      prepare(lane);
      this.lanes.push(lane);
    }
    this.isServing = true;
    this.#describe(attachment);
  }

  #grant({ backendId, maxIndirectSegments }: Attachment): LanePages {
    const { guest, plan } = this.#options.environment;
    return {
      pool: guest.grantPages(backendId, plan.poolPages, 'read-write'),
      zeroes: guest.grantPages(backendId, plan.zeroPages, this.#access),
      indirect:
        maxIndirectSegments > 0
          ? guest.grantPages(backendId, plan.indirectPages, this.#access)
          : undefined,
    };
  }

  // --- what the front end says

  async #backendClosing(): Promise<void> {
    await this.#lastOrder;
    await this.#forEachLane((lane, done) => lane.order({ type: 'hold', done }));
  }

  #detached(reason: DetachReason): Promise<void> {
    this.#options.environment.scheduler.trace('process', `connection lost: ${reason}`);
    this.isServing = false;
    return this.#inOrder(async () => {
      await this.#forEachLane((lane, done) => lane.order({ type: 'suspend', done }));
      this.#sharedQueues?.free();
      this.#contexts?.contentUnknown();
    });
  }

  #reattached(attachment: Attachment): void {
    this.#inOrder(() => this.#resumeLanes(attachment)).catch((error: Error) => {
      if (!this.isDead) this.#options.events.failed(error);
    });
  }

  #inOrder(order: () => Promise<void>): Promise<void> {
    const done = this.#lastOrder.then(order);
    this.#lastOrder = done.catch(() => undefined);
    return done;
  }

  async #resumeLanes(attachment: Attachment): Promise<void> {
    const { events } = this.#options;
    const { queues, abi } = attachment;
    const pageCount = queues[0]?.ring.pageCount ?? 1;
    const shared =
      queues.length < this.lanes.length
        ? new SharedQueues(this.lanes.length, queues.length, pageCount, abi)
        : undefined;
    this.#sharedQueues = shared;
    events.attached(this, attachment);
    const areGrantsNew = await this.#renewGrants(attachment);
    await this.#forEachLane((lane, done) => {
      const pages = this.#pages[lane.index];
      lane.order({
        type: 'resume',
        ring: laneRing(
          attachment,
          lane.index,
          pages?.indirect !== undefined,
          shared?.ringOf(lane.index),
        ),
        guests: shared?.guestsOf(lane.index),
        disk: diskShape(attachment),
        memory: areGrantsNew && pages !== undefined ? memoryOfLane(pages) : undefined,
        done,
      });
    });
    this.recoveries += 1;
    this.isServing = true;
    this.#describe(attachment);
  }

  async #renewGrants(attachment: Attachment): Promise<boolean> {
    const { areGrantsLost, isPersistent, backendId } = attachment;
    const isAccessTooLow = isPersistent && this.#access === 'read-only';
    if (!areGrantsLost && !isAccessTooLow) return false;
    if (isAccessTooLow) this.#access = 'read-write';
    await this.#forEachLane((lane, done) => lane.order({ type: 'evacuate', done }));
    const { guest } = this.#options.environment;
    for (const pages of this.#pages) revoke(pages);
    this.#pages = this.#pages.map(({ pool, zeroes, indirect }) => ({
      pool: guest.grantPages(backendId, pool.pageCount, 'read-write'),
      zeroes: guest.grantPages(backendId, zeroes.pageCount, this.#access),
      indirect: indirect && guest.grantPages(backendId, indirect.pageCount, this.#access),
    }));
    return true;
  }

  #resized(sectors: number): void {
    this.#contexts?.contentUnknown();
    if (this.#info !== undefined) {
      this.#info = { ...this.#info, sizeBytes: sectors * RING_SECTOR_BYTES };
    }
  }

  #describe(attachment: Attachment): void {
    this.#info = describeExport(attachment, {
      name: 'disk',
      isReadOnly: false,
      requestBytesMax: 1 << 20,
    });
  }

  async #forEachLane(action: (lane: SimulatedLane, done: () => void) => void): Promise<void> {
    await Promise.all(
      this.lanes.map((lane) => new Promise<void>((resolve) => action(lane, resolve))),
    );
  }
}

function memoryOfLane({ pool, zeroes, indirect }: LanePages) {
  return {
    pool: memoryOf(pool),
    zeroPool: memoryOf(zeroes),
    indirectPool: indirect && memoryOf(indirect),
  };
}

function revoke({ pool, zeroes, indirect }: LanePages): void {
  pool.revoke();
  zeroes.revoke();
  indirect?.revoke();
}
