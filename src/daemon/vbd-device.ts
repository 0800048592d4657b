/**
 * One vbd while it is served: its frontend in XenStore, the pages granted to its backend, and the
 * lanes that move its bytes. Keeps the lanes in step with what happens to the connection.
 */

import { setTimeout as delay } from 'node:timers/promises';
import type { ExportEntry } from 'nbd-server-ts/protocol';
import { hostAbi, RING_SECTOR_BYTES } from '../blkif/index.ts';
import {
  type AdoptedClient,
  createSharedContexts,
  createSharedRanges,
  Lane,
  LaneContexts,
  type LaneEvent,
} from '../dataplane/index.ts';
import {
  type Attachment,
  type DetachReason,
  Frontend,
  type FrontendEnd,
  type VbdDescription,
} from '../frontend/index.ts';
import { viewMemory } from '../sys/index.ts';
import {
  type AttachmentSummary,
  describeAttachment,
  describeExport,
  diskShape,
  laneRing,
  memoryOf,
} from './attachment-shape.ts';
import type { DeviceOptions } from './device-options.ts';
import { grantAgain, grantLanePages, type LanePages, revokeLanePages } from './page-budget.ts';
import { SharedQueues } from './shared-queues.ts';
import { transportWish } from './transport-wish.ts';

/** How long a backend that is lost may take to come back for the last requests. */
const LOST_DRAIN_MS = 3_000;

export class VbdDevice {
  readonly #options: DeviceOptions;
  readonly #frontend: Frontend;
  readonly #lanes: Lane[] = [];
  #pages: LanePages[] = [];
  /** Lanes from this number on have no ring of the backend, and share the others'. */
  #queueCount = 0;
  #shared: SharedQueues | undefined;
  #contexts: LaneContexts | undefined;
  #export: ExportEntry | undefined;
  #summary: AttachmentSummary | undefined;
  #isWaiting = false;
  /** Gone, or not trusted any more, which people were told: all is answered with EIO. */
  #isDead = false;
  #waitsSinceMs = 0;
  /** The last order to the lanes that belongs to a loss or a return: they come one by one. */
  #lastOrder: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;

  private constructor(options: DeviceOptions) {
    this.#options = options;
    const { log, vbd, use } = options;
    const details = { vbd: vbd.name };
    const wish = transportWish(use, options.share);
    const lanes = this.#lanes;
    this.#frontend = new Frontend({
      host: options.host,
      store: options.store,
      vbd,
      holderOf: options.holderOf,
      want: {
        ...wish,
        // One for each lane, once there are lanes.
        get queues() {
          return lanes.length === 0 ? wish.queues : lanes.length;
        },
      },
      abi: hostAbi(process.arch),
      viewMemory,
      signal: options.signal,
      timeouts: { reconnectMs: use.reconnectTimeoutMs },
      isReturnAwaited: use.isReturnAwaited,
      isSectorUnitTrusted: use.isSectorUnitTrusted,
      log: {
        debug: (message) => log.debug('frontend', details, message),
        info: (message) => log.info('frontend', details, message),
        warn: (message) => log.warn('frontend', details, message),
      },
      events: {
        backendClosing: () => this.#backendClosing(),
        detached: (reason) => this.#detached(reason),
        reattached: (attachment) => this.#reattached(attachment),
        resized: (sectors) => this.#resized(sectors),
        orphaned: (channels) => options.events.orphaned(channels),
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

  get vbd(): VbdDescription {
    return this.#options.vbd;
  }

  /** What a client that connects now is told. */
  get exportEntry(): ExportEntry {
    if (this.#export === undefined) throw new Error('the device is not attached yet');
    const canTrim = this.#export.canTrim && this.#lanes.every(({ takesTrims }) => takesTrims);
    return { ...this.#export, canTrim };
  }

  /** What was agreed with the backend, the last time. */
  get summary(): AttachmentSummary | undefined {
    return this.#summary;
  }

  /** Whether the backend is lost, and clients wait for it. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /** How often the connection to the backend was made anew. */
  get recoveryCount(): number {
    return this.#lanes[0]?.recoveryCount ?? 0;
  }

  get lanes(): readonly Lane[] {
    return this.#lanes;
  }

  /** Gives a client to the lane with a ring and the fewest. False when there is none any more. */
  adopt(client: AdoptedClient): boolean {
    if (this.#closed !== undefined) return false;
    const [first, ...others] = this.#lanes.slice(0, this.#queueCount);
    let chosen = first;
    for (const lane of others) {
      if (chosen === undefined || lane.clientCount < chosen.clientCount) chosen = lane;
    }
    chosen?.adopt(client);
    return chosen !== undefined;
  }

  /**
   * Lets requests in progress finish for at most `drainMs`, flushes the disk, ends the lanes, and
   * closes the vbd so that another frontend can attach.
   */
  close(drainMs: number): Promise<void> {
    this.#closed ??= this.#close(drainMs);
    return this.#closed;
  }

  async #close(drainMs: number): Promise<void> {
    const { log, vbd } = this.#options;
    if (drainMs > 0) {
      const drained = this.#forEachLane(async (lane) => {
        const errno = await lane.drain();
        // A disk that is gone has been told about already.
        if (errno !== 0 && !this.#isDead) {
          const message = `the last flush of ${vbd.name} failed`;
          log.error('flush-failed', { vbd: vbd.name, errno }, message);
        }
      });
      const boundMs = this.#isWaiting ? Math.min(drainMs, LOST_DRAIN_MS) : drainMs;
      const isDone = await Promise.race([
        drained.then(() => true),
        delay(boundMs, false, { ref: false }),
      ]);
      if (!isDone) {
        const why = this.#isWaiting ? ', since its backend is lost' : '';
        const message = `requests or the last flush of ${vbd.name} were given up after ${boundMs} ms${why}`;
        log.warn('drain-timeout', { vbd: vbd.name }, message);
      }
    }
    // Stopped before the frontend closes: it gives the rings back once the backend has let go.
    await this.#forEachLane((lane) => lane.stop());
    this.#shared?.free();
    const end = await this.#frontend.close();
    if (end.isBackendFinished) {
      for (const pages of this.#pages) revokeLanePages(pages);
    }
    this.#pages = [];
  }

  async #startLanes(attachment: Attachment): Promise<void> {
    const { host, vbd, limits, connectionsMax, share, laneNameSuffix, traceLane } = this.#options;
    const { queues, backendId, maxIndirectSegments, isPersistent } = attachment;
    this.#pages = grantLanePages(host, backendId, queues.length, {
      isIndirect: maxIndirectSegments > 0,
      isPersistent,
      poolPagesMax: share.poolPagesMax,
    });
    const ranges = createSharedRanges(queues.length, limits.operations + connectionsMax);
    this.#queueCount = queues.length;
    const contexts = createSharedContexts(attachment.disk.sectors * RING_SECTOR_BYTES);
    this.#contexts = new LaneContexts(contexts);
    for (const [index, pages] of this.#pages.entries()) {
      this.#lanes.push(
        new Lane(
          {
            index,
            name: `lane-${index}${laneNameSuffix}`,
            disk: diskShape(attachment),
            ring: laneRing(attachment, index, pages.indirect !== undefined),
            pool: memoryOf(pages.pool),
            zeroPool: memoryOf(pages.zeroes),
            indirectPool: pages.indirect && memoryOf(pages.indirect),
            limits,
            busyPollUs: this.#options.use.busyPollUs,
            ranges,
            contexts,
            trace: traceLane?.(vbd.name),
          },
          {
            onEvent: (event) => this.#laneEvent(event),
            onFailure: (error) => this.#options.events.failed(error),
          },
        ),
      );
    }
    await this.#forEachLane((lane) => lane.ready());
    const { details, message } = this.#describe(attachment);
    this.#options.log.info('attached', details, message);
    this.#warnOfMissingFlush(attachment);
  }

  /** The disk as it is by now: it may have grown while lanes were being set up. */
  #describe(attachment: Attachment): AttachmentSummary {
    const now = this.#frontend.attachment ?? attachment;
    this.#export = describeExport(now, this.#options.wish);
    this.#summary = describeAttachment(now, this.#pages);
    return this.#summary;
  }

  /** What one lane has found out holds for all of them. */
  #breakDown(): void {
    this.#isDead = true;
    for (const lane of this.#lanes) lane.breakDown();
  }

  #laneEvent(event: LaneEvent): void {
    const { log, vbd, events } = this.#options;
    if (event.type === 'closed') {
      events.clientLeft(event);
    } else if (event.type === 'broken' && !this.#isDead) {
      const message =
        `the backend of ${vbd.name} cannot be trusted any more: ${event.fault}; every request is ` +
        'answered with EIO from now on';
      log.error('backend-broken', { vbd: vbd.name, fault: event.fault }, message);
      this.#breakDown();
    }
  }

  // --- what the frontend says

  async #backendClosing(): Promise<void> {
    await this.#lastOrder;
    await this.#forEachLane((lane) => lane.hold());
  }

  #detached(reason: DetachReason): Promise<void> {
    const { log, vbd, events, use } = this.#options;
    if (reason === 'unplugging' && !use.isReturnAwaited) {
      const message = `${vbd.name} is being unplugged: the connection to its backend is closed`;
      log.info('unplugging', { vbd: vbd.name }, message);
    } else {
      const message = `the connection of ${vbd.name} to its backend is lost (${reason}); clients wait`;
      log.warn('recovery-began', { vbd: vbd.name, reason }, message);
    }
    this.#isWaiting = true;
    this.#waitsSinceMs = performance.now();
    events.changed();
    return this.#inOrder(async () => {
      await this.#forEachLane((lane) => lane.suspend());
      this.#shared?.free();
      // No lane hears of an old request any more, and what was not flushed may be lost.
      this.#contexts?.contentUnknown();
    });
  }

  #reattached(attachment: Attachment): void {
    this.#inOrder(() => this.#resumeLanes(attachment)).catch((error: Error) => {
      if (this.#closed === undefined) this.#options.events.failed(error);
    });
  }

  /**
   * A connection may be lost again while lanes are still being moved to it. Its loss must wait
   * until they are, or they would be given a ring that is no longer mapped.
   */
  #inOrder(order: () => Promise<void>): Promise<void> {
    const done = this.#lastOrder.then(order);
    this.#lastOrder = done.catch(() => undefined);
    return done;
  }

  async #resumeLanes(attachment: Attachment): Promise<void> {
    const { log, vbd, events } = this.#options;
    this.#shareQueues(attachment);
    const areGrantsNew = await this.#renewGrants(attachment);
    await Promise.all(
      this.#lanes.map(async (lane, index) => {
        const pages = this.#pages[index];
        const given = areGrantsNew ? pages : undefined;
        const place = this.#shared?.ringOf(index);
        await lane.resume({
          ring: laneRing(attachment, index, pages?.indirect !== undefined, place),
          guests: this.#shared?.guestsOf(index),
          disk: diskShape(attachment),
          pool: given && memoryOf(given.pool),
          zeroPool: given && memoryOf(given.zeroes),
          indirectPool: given?.indirect && memoryOf(given.indirect),
        });
      }),
    );
    this.#describe(attachment);
    this.#isWaiting = false;
    events.changed();
    const pauseMs = Math.round(performance.now() - this.#waitsSinceMs);
    const recoveries = this.recoveryCount;
    const details = { vbd: vbd.name, backend: attachment.backendPath, pauseMs, recoveries };
    const message = `${vbd.name} is connected to its backend again, after ${pauseMs} ms`;
    log.info('recovery-ended', details, message);
  }

  /**
   * A backend may come back with fewer queues than there are lanes, or with more again. Lanes keep
   * their clients; those without a queue share the others'.
   */
  #shareQueues({ queues, abi }: Attachment): void {
    const { log, vbd } = this.#options;
    const laneCount = this.#lanes.length;
    this.#queueCount = Math.min(queues.length, laneCount);
    this.#shared = undefined;
    if (queues.length >= laneCount) return;
    const message =
      `the backend of ${vbd.name} came back with fewer queues, ${queues.length} instead of ` +
      `${laneCount}; ${laneCount - queues.length} of ${laneCount} lanes share the rings of the others`;
    log.warn('queues-lost', { vbd: vbd.name, queues: queues.length, lanes: laneCount }, message);
    const pageCount = queues[0]?.ring.pageCount ?? 1;
    this.#shared = new SharedQueues(laneCount, queues.length, pageCount, abi);
  }

  /** Grants the lanes' pages anew where the backend could not use the old ones. */
  async #renewGrants(attachment: Attachment): Promise<boolean> {
    const { backendId, areGrantsLost, isPersistent } = attachment;
    // A backend that keeps pages mapped maps all of them for writing.
    const isAccessTooLow = isPersistent && this.#pages.some(({ access }) => access === 'read-only');
    if (!areGrantsLost && !isAccessTooLow) return false;
    const { host, log, vbd } = this.#options;
    await this.#forEachLane((lane) => lane.evacuate());
    this.#pages = await grantAgain(host, backendId, this.#pages.splice(0), {
      access: isAccessTooLow ? 'read-write' : undefined,
      isWanted: () => this.#closed === undefined,
      onWait: ({ limitPages, source }) => {
        const why = `${vbd.name} waits: others hold some of the ${limitPages} pages of ${source}`;
        log.warn('limit-hit', { vbd: vbd.name, limit: 'pages', times: 1 }, why);
      },
    });
    return true;
  }

  #resized(sectors: number): void {
    const { log, vbd, events } = this.#options;
    if (this.#export === undefined) return;
    const sizeBytes = sectors * RING_SECTOR_BYTES;
    this.#export = { ...this.#export, sizeBytes };
    this.#contexts?.contentUnknown();
    const message = `${vbd.name} has ${sizeBytes} bytes now; clients that connect from now on see that`;
    log.info('resized', { vbd: vbd.name, sizeBytes }, message);
    events.changed();
  }

  #ended(end: FrontendEnd): void {
    if (end.reason !== 'closed') this.#breakDown();
    this.#options.events.ended(end);
  }

  #warnOfMissingFlush(attachment: Attachment): void {
    const { log, vbd } = this.#options;
    if (diskShape(attachment).flush !== 'none' || attachment.disk.isReadOnly) return;
    const message = `the backend of ${vbd.name} offers no flush: its writes are taken as written through`;
    log.warn('write-through', { vbd: vbd.name }, message);
  }

  async #forEachLane(action: (lane: Lane) => Promise<void>): Promise<void> {
    await Promise.all(this.#lanes.map(action));
  }
}
