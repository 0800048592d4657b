/**
 * One vbd while it is served: its frontend in XenStore, the pages granted to its backend, and the
 * lanes that move its bytes. Keeps the lanes in step with what happens to the connection.
 */

import type { ExportEntry } from 'nbd-server-ts/protocol';
import { createExportInfo } from 'nbd-server-ts/protocol';
import type { XenStoreClient } from 'xenstore-client';
import { hostAbi, RING_SECTOR_BYTES } from '../blkif/index.ts';
import {
  type AdoptedClient,
  Counter,
  createSharedRanges,
  type DiskShape,
  type GrantedMemory,
  Lane,
  type LaneEvent,
  type LaneRing,
} from '../dataplane/index.ts';
import {
  type Attachment,
  type DetachReason,
  Frontend,
  type FrontendEnd,
  type HolderOf,
  type VbdDescription,
} from '../frontend/index.ts';
import type { GrantedPages, XenHost } from '../host/index.ts';
import { viewMemory } from '../sys/index.ts';
import type { Logger } from './log.ts';
import { grantAgain, grantLanePages, type LanePages, revokeLanePages } from './page-budget.ts';

/** NBD requests in progress at once in one lane, and of one connection. */
const OPERATIONS_PER_LANE = 1024;
const OPERATIONS_PER_CONNECTION = 256;
const SPILL_BYTES = 64 * 1024 * 1024;
/** Asked for, and cut to what the backend offers. */
const RING_PAGE_ORDER = 2;
const INDIRECT_SEGMENTS = 256;
const PREFERRED_BLOCK_BYTES_MIN = 4096;

export interface DeviceOptions {
  readonly host: XenHost;
  readonly store: XenStoreClient;
  readonly vbd: VbdDescription;
  readonly holderOf: HolderOf;
  readonly exportName: string;
  readonly isReadOnly: boolean;
  readonly queues: number;
  readonly ringPageOrder: number | undefined;
  readonly log: Logger;
  /** Gives up the first connection. */
  readonly signal: AbortSignal;
  readonly events: DeviceEvents;
}

export interface DeviceEvents {
  /** A client has left its lane. */
  clientLeft(event: Extract<LaneEvent, { type: 'closed' }>): void;
  /** The device will serve nobody any more. */
  ended(end: FrontendEnd): void;
  /** A lane died of a fault of this program. */
  failed(error: Error): void;
}

export class VbdDevice {
  readonly #options: DeviceOptions;
  readonly #frontend: Frontend;
  readonly #lanes: Lane[] = [];
  #pages: LanePages[] = [];
  #export: ExportEntry | undefined;

  private constructor(options: DeviceOptions) {
    this.#options = options;
    const { log, vbd } = options;
    const details = { vbd: vbd.name };
    this.#frontend = new Frontend({
      host: options.host,
      store: options.store,
      vbd,
      holderOf: options.holderOf,
      want: {
        queues: options.queues,
        ringPageOrder: options.ringPageOrder ?? RING_PAGE_ORDER,
        maxIndirectSegments: INDIRECT_SEGMENTS,
        // Pages are granted once and kept, and one page is never in two requests at once.
        isPersistent: true,
      },
      abi: hostAbi(process.arch),
      viewMemory,
      signal: options.signal,
      isReturnAwaited: false,
      log: {
        debug: (message) => log.debug('frontend', details, message),
        info: (message) => log.info('frontend', details, message),
        warn: (message) => log.warn('frontend', details, message),
      },
      events: {
        backendClosing: () => this.#forEachLane((lane) => lane.hold()),
        detached: (reason) => this.#detached(reason),
        reattached: (attachment) => this.#reattached(attachment),
        resized: (sectors) => this.#resized(sectors),
        ended: (end) => this.#ended(end),
      },
    });
  }

  /** Attaches to the vbd and starts its lanes. */
  static async open(options: DeviceOptions): Promise<VbdDevice> {
    const device = new VbdDevice(options);
    const attachment = await device.#frontend.attach();
    try {
      await device.#startLanes(attachment);
    } catch (error) {
      await device.close(0);
      throw error;
    }
    return device;
  }

  /** What a client that connects now is told. */
  get exportEntry(): ExportEntry {
    if (this.#export === undefined) throw new Error('the device is not attached yet');
    return this.#export;
  }

  /** Gives a client to the lane with the fewest. */
  adopt(client: AdoptedClient): void {
    const [first, ...others] = this.#lanes;
    let chosen = first;
    for (const lane of others) {
      if (chosen === undefined || clientsOf(lane) < clientsOf(chosen)) chosen = lane;
    }
    chosen?.adopt(client);
  }

  /**
   * Lets requests in progress finish for at most `drainMs`, flushes the disk, ends the lanes, and
   * closes the vbd so that another frontend can attach.
   */
  async close(drainMs: number): Promise<void> {
    const { log, vbd } = this.#options;
    if (drainMs > 0) {
      const drained = this.#forEachLane(async (lane) => {
        const errno = await lane.drain();
        if (errno !== 0) {
          const message = `the last flush of ${vbd.name} failed`;
          log.error('flush-failed', { vbd: vbd.name, errno }, message);
        }
      });
      const isDone = await Promise.race([drained.then(() => true), delay(drainMs)]);
      if (!isDone) {
        const message = `requests of ${vbd.name} were still unanswered after ${drainMs} ms`;
        log.warn('drain-timeout', { vbd: vbd.name }, message);
      }
    }
    // Stopped before the frontend closes: it gives the rings back once the backend has let go.
    await this.#forEachLane((lane) => lane.stop());
    const end = await this.#frontend.close();
    if (end.isBackendFinished) {
      for (const pages of this.#pages) revokeLanePages(pages);
    }
    this.#pages = [];
  }

  async #startLanes(attachment: Attachment): Promise<void> {
    const { host } = this.#options;
    const { queues, backendId, maxIndirectSegments, isPersistent } = attachment;
    this.#pages = grantLanePages(host, backendId, queues.length, {
      isIndirect: maxIndirectSegments > 0,
      isPersistent,
    });
    const ranges = createSharedRanges(queues.length, OPERATIONS_PER_LANE);
    for (const [index, pages] of this.#pages.entries()) {
      this.#lanes.push(
        new Lane(
          {
            index,
            disk: diskShape(attachment),
            ring: laneRing(attachment, index),
            pool: memoryOf(pages.pool),
            zeroPool: memoryOf(pages.zeroes),
            indirectPool: pages.indirect && memoryOf(pages.indirect),
            limits: {
              operationsPerConnection: OPERATIONS_PER_CONNECTION,
              spillBytes: SPILL_BYTES,
            },
            ranges,
          },
          {
            onEvent: (event) => this.#laneEvent(event),
            onFailure: (error) => this.#options.events.failed(error),
          },
        ),
      );
    }
    await this.#forEachLane((lane) => lane.ready());
    this.#export = this.#describe(attachment, attachment.disk.sectors);
    this.#logAttached(attachment);
  }

  #laneEvent(event: LaneEvent): void {
    const { log, vbd, events } = this.#options;
    if (event.type === 'closed') {
      events.clientLeft(event);
    } else if (event.type === 'broken') {
      const message = `the backend of ${vbd.name} cannot be trusted any more: ${event.fault}`;
      log.error('backend-broken', { vbd: vbd.name, fault: event.fault }, message);
    }
  }

  // --- what the frontend says

  async #detached(reason: DetachReason): Promise<void> {
    const { log, vbd } = this.#options;
    const message = `the connection of ${vbd.name} to its backend is lost (${reason}); clients wait`;
    log.warn('recovery-began', { vbd: vbd.name, reason }, message);
    await this.#forEachLane((lane) => lane.suspend());
  }

  #reattached(attachment: Attachment): void {
    this.#resumeLanes(attachment).catch((error: Error) => this.#options.events.failed(error));
  }

  async #resumeLanes(attachment: Attachment): Promise<void> {
    const { host, log, vbd } = this.#options;
    const { backendId, maxIndirectSegments, areGrantsLost } = attachment;
    if (attachment.queues.length !== this.#lanes.length) {
      throw new Error(
        `the backend of ${vbd.name} came back with ${attachment.queues.length} queues instead of ` +
          `${this.#lanes.length}: start again`,
      );
    }
    if (areGrantsLost) {
      await this.#forEachLane((lane) => lane.evacuate());
      for (const pages of this.#pages) revokeLanePages(pages);
      this.#pages = this.#pages.map((pages) => grantAgain(host, backendId, pages));
    }
    await Promise.all(
      this.#lanes.map(async (lane, index) => {
        const pages = areGrantsLost ? this.#pages[index] : undefined;
        await lane.resume({
          ring: laneRing(attachment, index),
          disk: diskShape(attachment),
          pool: pages && memoryOf(pages.pool),
          zeroPool: pages && memoryOf(pages.zeroes),
          indirectPool: pages?.indirect && memoryOf(pages.indirect),
        });
      }),
    );
    this.#export = this.#describe(attachment, attachment.disk.sectors);
    const details = { vbd: vbd.name, backend: attachment.backendPath, maxIndirectSegments };
    log.info('recovery-ended', details, `${vbd.name} is connected to its backend again`);
  }

  #resized(sectors: number): void {
    const { log, vbd } = this.#options;
    if (this.#export === undefined) return;
    const sizeBytes = sectors * RING_SECTOR_BYTES;
    this.#export = { ...this.#export, sizeBytes };
    const message = `${vbd.name} has ${sizeBytes} bytes now; clients that connect from now on see that`;
    log.info('resized', { vbd: vbd.name, sizeBytes }, message);
  }

  #ended(end: FrontendEnd): void {
    if (end.reason !== 'closed') for (const lane of this.#lanes) lane.breakDown();
    this.#options.events.ended(end);
  }

  // --- descriptions

  #describe(attachment: Attachment, sectors: number): ExportEntry {
    const { vbd, exportName } = this.#options;
    const { disk, backendPath } = attachment;
    return {
      ...createExportInfo({
        sizeBytes: sectors * RING_SECTOR_BYTES,
        isReadOnly: disk.isReadOnly || this.#options.isReadOnly,
        // A backend without any flush writes through, so a flush is done before it is asked for.
        canFlush: true,
        canFua: true,
        canTrim: disk.discard !== undefined,
        canWriteZeroes: true,
        // Zeroes are written like other bytes: a client that wants them fast is told so at once.
        canFastZero: true,
        isZeroFast: false,
        // One ring set, and one flush, serve all connections.
        canMultiConn: true,
        minimumBlockBytes: 1,
        preferredBlockBytes: Math.max(PREFERRED_BLOCK_BYTES_MIN, disk.physicalSectorSize),
      }),
      name: exportName,
      description: `Xen vbd ${vbd.name} (${vbd.id}), backend ${backendPath}`,
    };
  }

  #logAttached(attachment: Attachment): void {
    const { log, vbd } = this.#options;
    const { disk, queues, maxIndirectSegments } = attachment;
    const shape = diskShape(attachment);
    const poolPages = this.#pages[0]?.pool.pageCount ?? 0;
    const pages = this.#pages.reduce(
      (sum, { pool, zeroes, indirect }) =>
        sum + pool.pageCount + zeroes.pageCount + (indirect?.pageCount ?? 0),
      queues.reduce((sum, { ring }) => sum + ring.pageCount, 0),
    );
    const size = `${disk.sectors * RING_SECTOR_BYTES} bytes`;
    log.info(
      'attached',
      {
        vbd: vbd.name,
        backend: attachment.backendPath,
        sizeBytes: disk.sectors * RING_SECTOR_BYTES,
        sectorBytes: disk.sectorSize,
        readOnly: disk.isReadOnly,
        queues: queues.length,
        slots: queues[0]?.slotCount,
        maxIndirectSegments,
        persistent: attachment.isPersistent,
        flush: shape.flush,
        discard: disk.discard !== undefined,
        poolPages,
        grantedPages: pages,
      },
      `attached to ${vbd.name}: ${size}${disk.isReadOnly ? ', read-only' : ''}, ` +
        `${queues.length} ring of ${queues[0]?.slotCount} slots, ${pages} pages granted`,
    );
    if (shape.flush === 'none' && !disk.isReadOnly) {
      const message = `the backend of ${vbd.name} offers no flush: its writes are taken as written through`;
      log.warn('write-through', { vbd: vbd.name }, message);
    }
  }

  async #forEachLane(action: (lane: Lane) => Promise<void>): Promise<void> {
    await Promise.all(this.#lanes.map(action));
  }
}

function clientsOf(lane: Lane): number {
  return lane.counters.get(Counter.CLIENTS_NOW);
}

function diskShape({ disk }: Attachment): DiskShape {
  // A flush is a kind of write to blkback, which refuses it on a disk that it may only read.
  const canFlush = !disk.isReadOnly && disk.canFlush;
  const canBarrier = !disk.isReadOnly && disk.canBarrier;
  return {
    sectorBytes: disk.sectorSize,
    flush: canFlush ? 'flush-cache' : canBarrier ? 'barrier' : 'none',
    canFallBackToBarrier: canBarrier,
    discard: disk.discard && {
      granularityBytes: disk.discard.granularityBytes,
      alignmentBytes: disk.discard.alignmentBytes,
    },
  };
}

function laneRing(attachment: Attachment, index: number): LaneRing {
  const queue = attachment.queues[index];
  if (queue === undefined) throw new Error(`the backend offers no queue ${index}`);
  return {
    address: queue.ring.address,
    pageCount: queue.ring.pageCount,
    abi: attachment.abi,
    handle: attachment.vbd.id,
    eventChannel: queue.eventChannel,
    maxSegments: Math.max(DIRECT_SEGMENTS, attachment.maxIndirectSegments),
  };
}

const DIRECT_SEGMENTS = 11;

/** What of granted pages may cross to another thread. */
function memoryOf({ address, grefs }: GrantedPages): GrantedMemory {
  return { address, grefs };
}

function delay(ms: number): Promise<false> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(false), ms).unref();
  });
}
