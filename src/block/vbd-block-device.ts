/**
 * A block device on a vbd: its front end in XenStore, the ring, and what callers wait for. All of
 * it runs on the thread of the caller, who sees promises and no threads.
 */

import type { XenStoreClient } from 'xenstore-client';
import { hostAbi, RING_SECTOR_BYTES } from '../blkif/index.ts';
import {
  type Attachment,
  Frontend,
  type FrontendEnd,
  FrontendError,
  type HolderOf,
  silentLog,
  type VbdDescription,
} from '../frontend/index.ts';
import type { EventChannelHandle, EventChannelModule, XenHost } from '../host/index.ts';
import { viewMemory } from '../sys/index.ts';
import type { BlockDevice, BlockInfo } from './block-device.ts';
import {
  type BlockError,
  type BlockResult,
  type BlockWriteResult,
  formatError,
} from './block-error.ts';
import { BlockRing, RingFault } from './block-ring.ts';
import { GrantedBuffers } from './granted-buffers.ts';
import { IoQueue } from './io-queue.ts';
import type { BlockLog, ConnectOptions } from './options.ts';
import { RingEvents } from './ring-events.ts';
import { checkRange, Transfer } from './transfer.ts';
import { WorkPages } from './work-pages.ts';

/** Asked for, and cut to what the back end offers. */
const RING_PAGE_ORDER = 2;
const INDIRECT_SEGMENTS = 256;

/** How long a disconnect waits for operations in progress. */
const DRAIN_MS = 30_000;

const DISCONNECTED: BlockError = { code: 'Disconnected' };

/** The vbd of a device, and the host that it is on. */
export interface VbdPlace {
  readonly host: XenHost;
  readonly store: XenStoreClient;
  readonly vbd: VbdDescription;
  readonly holderOf: HolderOf;
  /** Keeps event channels whose descriptors must never be closed; undefined where they may be. */
  readonly keepChannels: ((fds: readonly number[]) => Promise<void>) | undefined;
}

export class VbdBlockDevice implements BlockDevice {
  readonly #place: VbdPlace;
  readonly #isReadOnly: boolean;
  readonly #log: BlockLog;
  readonly #frontend: Frontend;
  readonly #io = new IoQueue();
  readonly #buffers = new GrantedBuffers();
  #pages: WorkPages | undefined;
  #channels: EventChannelModule | undefined;
  #events: RingEvents | undefined;
  /** The present connection, or the last one. */
  #attachment: Attachment | undefined;
  #isConnected = false;
  #sectors = 0;
  /** Whether channels are kept of which not one may be closed. */
  #hasKeptChannels = false;
  #disconnected: Promise<void> | undefined;
  readonly #closed: { readonly promise: Promise<void>; readonly resolve: () => void };

  private constructor(place: VbdPlace, options: ConnectOptions) {
    this.#place = place;
    this.#closed = createClosed();
    this.#isReadOnly = options.readOnly ?? false;
    this.#log = options.log ?? silentLog;
    this.#frontend = new Frontend({
      host: place.host,
      store: place.store,
      vbd: place.vbd,
      holderOf: place.holderOf,
      want: {
        queues: 1,
        ringPageOrder: options.ringPageOrder ?? RING_PAGE_ORDER,
        maxIndirectSegments: INDIRECT_SEGMENTS,
        // One page is never in two requests at once.
        isPersistent: true,
      },
      abi: hostAbi(process.arch),
      viewMemory,
      signal: options.signal,
      timeouts: { reconnectMs: options.reconnectTimeoutMs ?? Number.POSITIVE_INFINITY },
      isReturnAwaited: options.waitForReturn ?? false,
      log: this.#log,
      events: {
        backendClosing: () => this.#io.hold(),
        detached: () => this.#detach(),
        reattached: (attachment) => this.#reattached(attachment),
        resized: (sectors) => {
          this.#sectors = sectors;
        },
        orphaned: (channels) => this.#orphaned(channels),
        ended: (end) => this.#ended(end),
      },
    });
  }

  /**
   * Connects to the vbd of `place`, whose host and store are the device's from then on.
   *
   * @throws FrontendError, HostError; the host and the store are closed then.
   */
  static async open(place: VbdPlace, options: ConnectOptions): Promise<VbdBlockDevice> {
    const device = new VbdBlockDevice(place, options);
    try {
      await device.#use(await device.#frontend.attach());
      const { failure } = device.#io;
      if (failure !== undefined) throw new FrontendError('BAD_BACKEND', formatError(failure));
    } catch (error) {
      await device.disconnect();
      throw error;
    }
    return device;
  }

  /** Resolves when it is disconnected, and everything is given back. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Whether it is disconnected, or about to be. */
  get isDisconnected(): boolean {
    return this.#disconnected !== undefined;
  }

  async getInfo(): Promise<BlockInfo> {
    const { sectorBytes, sizeBytes } = this.#extent;
    return {
      readWrite: !this.#refusesWrites,
      sectorSize: sectorBytes,
      sizeSectors: BigInt(sizeBytes / sectorBytes),
    };
  }

  async read(sectorStart: bigint | number, buffers: readonly Uint8Array[]): Promise<BlockResult> {
    const range = checkRange(this.#extent, sectorStart, buffers);
    return await this.#transfer(false, range, buffers);
  }

  async write(
    sectorStart: bigint | number,
    buffers: readonly Uint8Array[],
  ): Promise<BlockWriteResult> {
    const range = checkRange(this.#extent, sectorStart, buffers);
    if (this.#refusesWrites) return { ok: false, error: { code: 'IsReadOnly' } };
    return await this.#transfer(true, range, buffers);
  }

  async flush(): Promise<BlockResult> {
    return await new Promise((settle) => this.#io.flush({ settle }));
  }

  disconnect(): Promise<void> {
    this.#disconnected ??= this.#disconnect();
    return this.#disconnected;
  }

  allocatePages(pageCount: number): Buffer {
    if (!Number.isInteger(pageCount) || pageCount < 1) {
      throw new RangeError(`pageCount must be a whole number from 1 on, not ${pageCount}`);
    }
    const attachment = this.#attachment;
    if (attachment === undefined || this.#disconnected !== undefined) {
      throw new Error(`${this.#place.vbd.name} is disconnected: its pages cannot be granted`);
    }
    return this.#buffers.allocate(this.#place.host, attachment.backendId, pageCount);
  }

  releasePages(buffer: Uint8Array): void {
    this.#buffers.release(buffer);
  }

  get #extent(): { readonly sectorBytes: number; readonly sizeBytes: number } {
    const sectorBytes = this.#attachment?.disk.sectorSize ?? RING_SECTOR_BYTES;
    return { sectorBytes, sizeBytes: this.#sectors * RING_SECTOR_BYTES };
  }

  get #refusesWrites(): boolean {
    return this.#isReadOnly || (this.#attachment?.disk.isReadOnly ?? true);
  }

  #transfer(
    isWrite: boolean,
    range: { readonly firstByte: number; readonly lengthBytes: number },
    buffers: readonly Uint8Array[],
  ): Promise<BlockResult> {
    return new Promise((resolve) => {
      this.#io.start(new Transfer(isWrite, range, buffers, resolve));
    });
  }

  // --- the connection

  async #use(attachment: Attachment): Promise<void> {
    const [queue] = attachment.queues;
    if (queue === undefined) throw new Error('a connection without a ring');
    const { host } = this.#place;
    this.#attachment = attachment;
    this.#isConnected = true;
    this.#sectors = attachment.disk.sectors;
    const { eventChannel } = queue;
    this.#channels ??= (await import(eventChannel.moduleUrl)) as EventChannelModule;
    // The connection may be over again.
    if (this.#attachment !== attachment || !this.#isConnected) return;
    this.#pages ??= new WorkPages(host, attachment.backendId);
    const channel = this.#channels.openEventChannel(eventChannel);
    this.#guard(() => {
      this.#io.attach({
        ring: new BlockRing(attachment),
        pages: this.#pages as WorkPages,
        buffers: this.#buffers,
        sectorBytes: attachment.disk.sectorSize,
        ...flushOf(attachment),
        notify: () => channel.notify(),
      });
      this.#events = new RingEvents(channel, () => this.#guard(() => this.#io.turn()) ?? false);
    });
  }

  /** A back end that broke the rules of the ring is never listened to again. */
  #guard<Result>(action: () => Result): Result | undefined {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof RingFault)) throw error;
      const message = `the back end of ${this.#place.vbd.name} cannot be trusted: ${error.message}`;
      this.#log.warn(message);
      this.#events?.stop();
      this.#io.stop({ code: 'Failed', message });
      return undefined;
    }
  }

  #detach(): void {
    this.#isConnected = false;
    this.#events?.stop();
    this.#events = undefined;
    this.#io.detach();
  }

  #reattached(attachment: Attachment): void {
    if (this.#io.failure !== undefined) return;
    if (attachment.areGrantsLost) {
      this.#buffers.retireAll();
      this.#pages?.revoke();
      this.#pages = undefined;
    }
    this.#use(attachment).catch((error: Error) => {
      this.#log.warn(`${this.#place.vbd.name} cannot be used again: ${error.message}`);
      this.#io.stop({ code: 'Failed', message: error.message });
    });
  }

  #orphaned(channels: readonly EventChannelHandle[]): void {
    const { keepChannels, vbd } = this.#place;
    if (keepChannels === undefined) return;
    this.#hasKeptChannels = true;
    keepChannels(channels.map(({ fd }) => fd)).catch((error: Error) => {
      this.#log.warn(
        `this guest was restored, and nobody holds an event channel of ${vbd.name} from before ` +
          `(${error.message}): do not end this process before the guest shuts down`,
      );
    });
  }

  #ended(end: FrontendEnd): void {
    if (end.error !== undefined) this.#log.warn(end.error.message);
    this.#detach();
    this.#io.stop(DISCONNECTED);
    // Unplugged, or given up: there is nothing to wait for.
    void this.disconnect();
  }

  async #disconnect(): Promise<void> {
    const { host, store } = this.#place;
    try {
      if (this.#isConnected && this.#io.failure === undefined) await this.#drain();
      this.#detach();
      const end = await this.#frontend.close();
      this.#io.stop(DISCONNECTED);
      this.#buffers.retireAll();
      // The back end may still write to pages that it has not let go of.
      if (end.isBackendFinished) this.#pages?.revoke();
      this.#pages = undefined;
      await store.close();
      // Closing the host closes all its channels, also those that must stay open.
      if (!this.#hasKeptChannels) await host.close();
    } catch (error) {
      this.#log.warn(`disconnect: ${error instanceof Error ? error.message : String(error)}`);
    }
    this.#closed.resolve();
  }

  async #drain(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const bound = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, DRAIN_MS);
    });
    await Promise.race([this.#io.drain(), bound]);
    clearTimeout(timer);
  }
}

function createClosed(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

function flushOf({ disk }: Attachment): {
  readonly flush: 'flush-cache' | 'barrier' | 'none';
  readonly canFallBackToBarrier: boolean;
} {
  // A flush is a kind of write to blkback, which refuses it on a disk that it may only read.
  const canFlush = !disk.isReadOnly && disk.canFlush;
  const canBarrier = !disk.isReadOnly && disk.canBarrier;
  return {
    flush: canFlush ? 'flush-cache' : canBarrier ? 'barrier' : 'none',
    canFallBackToBarrier: canBarrier,
  };
}
