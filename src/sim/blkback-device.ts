/**
 * The back end of one virtual disk: the state machine of Linux's drivers/block/xen-blkback/xenbus.c
 * (xen_blkbk_probe, frontend_changed, connect_ring, connect), with its keys in its order. It sees
 * the front end through XenStore only, maps its rings by grant reference and binds its ports.
 *
 * Everything here happens one step at a time; {@link BlkbackDevice.frontendChanged} is to be called
 * through a queue.
 */

import { type XenStoreClient, XenStoreError, type XenStoreTransaction } from 'xenstore-client';
import {
  FrontendKey,
  type FrontendRequest,
  formatXenbusState,
  KeyError,
  parseFrontendKeys,
  parseNumberKey,
  parseXenbusState,
  RING_SECTOR_BYTES,
  VdiskInfo,
  XenbusState,
} from '../blkif/index.ts';
import type { EventChannelHandle } from '../host/index.ts';
import type { EventChannelTable } from './event-channel-table.ts';
import type { SimulatedFeatures } from './features.ts';
import type { GrantMapping, GrantTable } from './grants.ts';
import type { Hostility } from './hostile-answers.ts';
import { StopMode } from './queue-runner.ts';
import type { RingService } from './ring-service.ts';

/** What serves a back end, shared by all devices of a driver. */
export interface BlkbackParts {
  /** The domain that the back end runs in. */
  readonly domid: number;
  readonly store: XenStoreClient;
  readonly rings: RingService;
  readonly grants: GrantTable;
  readonly channels: EventChannelTable;
  readonly log: (line: string) => void;
  /** Decides delays, errors and lies on the rings. Default 0. */
  readonly seed?: number | undefined;
  /** A number that no ring of this host has had. */
  readonly nextQueueId: () => number;
}

/** The disk behind a device. */
export interface BlkbackDisk {
  /** The ring service's number for it. */
  readonly diskId: number;
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  readonly deviceType: 'disk' | 'cdrom';
  readonly features: SimulatedFeatures;
  /** How the back end lies on the ring; undefined when it does not. */
  readonly hostility: Hostility | undefined;
  /** Keys that are published with another value than the true one. */
  readonly keyOverrides: Readonly<Record<string, string>>;
}

interface AttachedQueue {
  readonly queueId: number;
  readonly mapping: GrantMapping;
  readonly channel: EventChannelHandle;
}

/** A front end that asked for something impossible: the device is closed, with this text. */
class FrontendError extends Error {
  readonly errno: number;

  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

const EINVAL = 22;
const MAX_GREF = 2 ** 32 - 1;
const DISCARD_GRANULARITY_BYTES = 4096;

export class BlkbackDevice {
  /** Relative to the back end's domain, e.g. `backend/vbd/1/51712`. */
  readonly node: string;
  readonly frontendPath: string;
  /** What this end last wrote; XenStore may hold something else, written by the toolstack. */
  state: XenbusState = XenbusState.Initialising;
  /** Whether this device is gone: its directory vanished, or it was closed and is not online. */
  isRemoved = false;
  readonly #parts: BlkbackParts;
  readonly #frontendDomid: number;
  #disk: BlkbackDisk;
  #queues: AttachedQueue[] = [];

  constructor(
    parts: BlkbackParts,
    node: string,
    frontend: { readonly path: string; readonly domid: number },
    disk: BlkbackDisk,
  ) {
    this.#parts = parts;
    this.node = node;
    this.frontendPath = frontend.path;
    this.#frontendDomid = frontend.domid;
    this.#disk = disk;
  }

  /** Whether rings are being served. */
  get isConnected(): boolean {
    return this.#queues.length > 0;
  }

  /** Announces what the transport can do, and waits for a front end. */
  async probe(): Promise<void> {
    const { features } = this.#disk;
    const { store } = this.#parts;
    const write = (key: string, value: number): Promise<void> =>
      store.write(`${this.node}/${key}`, this.#published(key, value));
    await write('multi-queue-max-queues', features.queues);
    await write('feature-max-indirect-segments', features.indirect);
    await write('max-ring-page-order', features.ringPageOrder);
    await this.#switchState(XenbusState.InitWait);
  }

  /** Reads the front end's state and reacts to it. */
  async frontendChanged(): Promise<void> {
    if (this.isRemoved) return;
    const state = await this.readFrontendState();
    switch (state) {
      case XenbusState.Initialising:
        if (this.state === XenbusState.Closed) await this.#switchState(XenbusState.InitWait);
        break;
      case XenbusState.Initialised:
      case XenbusState.Connected:
        if (this.state !== XenbusState.Connected) await this.#connect();
        break;
      case XenbusState.Closing:
        await this.#switchState(XenbusState.Closing);
        break;
      case XenbusState.Closed:
        await this.disconnect(StopMode.DRAIN);
        await this.#switchState(XenbusState.Closed);
        if (!(await this.#isOnline())) this.isRemoved = true;
        break;
      case XenbusState.Unknown:
        await this.remove(StopMode.DRAIN);
        break;
      case XenbusState.InitWait:
      case XenbusState.Reconfiguring:
      case XenbusState.Reconfigured:
        await this.#fail(new FrontendError(EINVAL, `saw state ${state} at frontend`));
    }
  }

  async readFrontendState(): Promise<XenbusState> {
    try {
      return parseXenbusState(await this.#parts.store.tryRead(`${this.frontendPath}/state`));
    } catch (error) {
      if (error instanceof XenStoreError && error.code === 'EACCES') return XenbusState.Unknown;
      throw error;
    }
  }

  /**
   * Stops serving, unmaps everything and closes the ports. In-flight requests are finished, or with
   * CRASH executed late and not answered; either way this resolves after the last of them.
   */
  async disconnect(mode: StopMode): Promise<void> {
    const queues = this.#queues;
    this.#queues = [];
    await Promise.all(queues.map((queue) => this.#parts.rings.detach(queue.queueId, mode)));
    for (const queue of queues) this.#release(queue);
  }

  /** The driver lets go of the device, without a word in XenStore. */
  async remove(mode: StopMode): Promise<void> {
    this.isRemoved = true;
    await this.disconnect(mode);
  }

  /** The disk has another size: `sectors` is written, and the state again, to make it seen. */
  async resize(disk: BlkbackDisk): Promise<void> {
    this.#disk = disk;
    if (this.state !== XenbusState.Connected || this.isRemoved) return;
    await this.#parts.store.transaction(async (transaction) => {
      await transaction.write(`${this.node}/sectors`, String(this.#sectors));
      await transaction.write(`${this.node}/state`, String(this.state));
    });
  }

  // --- connecting

  async #connect(): Promise<void> {
    await this.disconnect(StopMode.DRAIN);
    try {
      const request = await this.#readFrontend();
      const queues = await this.#readQueues(request);
      await this.#parts.store.transaction((transaction) => this.#writeProperties(transaction));
      await this.#switchState(XenbusState.Connected);
      await this.#serve(request, queues);
    } catch (error) {
      await this.disconnect(StopMode.DRAIN);
      if (!(error instanceof FrontendError)) throw error;
      await this.#fail(error);
    }
  }

  /** connect_ring: the top-level keys. */
  async #readFrontend(): Promise<FrontendRequest> {
    const keys = new Map<string, string>();
    for (const key of [
      FrontendKey.PROTOCOL,
      FrontendKey.FEATURE_PERSISTENT,
      FrontendKey.MULTI_QUEUE_NUM_QUEUES,
      FrontendKey.RING_PAGE_ORDER,
    ]) {
      const value = await this.#parts.store.tryRead(`${this.frontendPath}/${key}`);
      if (value !== undefined) keys.set(key, value);
    }
    const request = parsed(() => parseFrontendKeys(keys));
    const { queues, ringPageOrder } = this.#disk.features;
    if (request.queueCount < 1 || request.queueCount > queues) {
      throw new FrontendError(
        EINVAL,
        `guest requested ${request.queueCount} queues, exceeding the maximum of ${queues}.`,
      );
    }
    if (request.ringPageOrder !== undefined && request.ringPageOrder > ringPageOrder) {
      throw new FrontendError(
        EINVAL,
        `requested ring page order ${request.ringPageOrder} exceed max:${ringPageOrder}`,
      );
    }
    return request;
  }

  async #readQueues(request: FrontendRequest): Promise<AttachedQueue[]> {
    for (let index = 0; index < request.queueCount; index++) {
      const directory =
        request.queueCount === 1 ? this.frontendPath : `${this.frontendPath}/queue-${index}`;
      this.#queues.push(await this.#mapQueue(directory, request.ringPageOrder));
    }
    return this.#queues;
  }

  /** read_per_ring_refs and xen_blkif_map. */
  async #mapQueue(directory: string, ringPageOrder: number | undefined): Promise<AttachedQueue> {
    const port = await this.#readNumber(directory, FrontendKey.EVENT_CHANNEL);
    const grefs: number[] = [];
    if (ringPageOrder === undefined) {
      grefs.push(await this.#readNumber(directory, FrontendKey.RING_REF));
    } else {
      // The mere presence of ring-page-order, also of 0, makes the references numbered.
      for (let page = 0; page < 2 ** ringPageOrder; page++) {
        grefs.push(await this.#readNumber(directory, `${FrontendKey.RING_REF}${page}`));
      }
    }
    const { grants, channels, domid, nextQueueId } = this.#parts;
    const mapping = grants.mapContiguous(domid, grefs);
    if (mapping === undefined) {
      throw new FrontendError(EINVAL, `mapping ring-ref port ${port}`);
    }
    const channel = channels.bindInterdomain(domid, this.#frontendDomid, port);
    if (channel === undefined) {
      mapping.unmap();
      throw new FrontendError(EINVAL, `mapping ring-ref port ${port}`);
    }
    return { queueId: nextQueueId(), mapping, channel };
  }

  async #readNumber(directory: string, key: string): Promise<number> {
    const value = await this.#parts.store.tryRead(`${directory}/${key}`);
    const what = `reading ${directory}/${key}`;
    if (value === undefined) throw new FrontendError(EINVAL, what);
    return parsed(() => parseNumberKey(new Map([[key, value]]), key, MAX_GREF), what);
  }

  /** connect: what is only known of the disk itself. */
  async #writeProperties(transaction: XenStoreTransaction): Promise<void> {
    // A directory that vanished meanwhile is not brought back: nobody would ever remove it.
    if ((await transaction.tryRead(`${this.node}/state`)) === undefined) return;
    const { features, isReadOnly, deviceType } = this.#disk;
    const canDiscard = features.discard && !isReadOnly;
    const write = (key: string, value: number): Promise<void> =>
      transaction.write(`${this.node}/${key}`, this.#published(key, value));
    await write('feature-flush-cache', features.flush ? 1 : 0);
    if (canDiscard) {
      await write('discard-granularity', Math.max(DISCARD_GRANULARITY_BYTES, features.sectorSize));
      await write('discard-alignment', 0);
      await write('discard-secure', 0);
    }
    await write('feature-discard', canDiscard ? 1 : 0);
    await write('feature-barrier', features.barrier ? 1 : 0);
    await write('feature-persistent', features.persistent ? 1 : 0);
    await write('sectors', this.#sectors);
    const info =
      (deviceType === 'cdrom' ? VdiskInfo.VDISK_CDROM : 0) |
      (isReadOnly ? VdiskInfo.VDISK_READONLY : 0);
    await write('info', info);
    await write('sector-size', features.sectorSize);
    await write('physical-sector-size', features.sectorSize);
  }

  async #serve(request: FrontendRequest, queues: readonly AttachedQueue[]): Promise<void> {
    const { features, isReadOnly, diskId, hostility } = this.#disk;
    const { rings, grants, domid, seed = 0 } = this.#parts;
    const engineFeatures = {
      sectorSize: features.sectorSize,
      readOnly: isReadOnly,
      indirect: features.indirect,
      flush: features.flush,
      barrier: features.barrier,
      discard: features.discard && !isReadOnly,
      persistent: features.persistent && request.isPersistent,
    };
    await Promise.all(
      queues.map(({ queueId, mapping, channel }) =>
        rings.attach({
          queueId,
          diskId,
          ring: { address: mapping.address, pageCount: mapping.pageCount, abi: request.abi },
          channel,
          grants: grants.placement,
          domid,
          features: engineFeatures,
          seed: (seed + queueId) >>> 0,
          hostility,
        }),
      ),
    );
  }

  #release(queue: AttachedQueue): void {
    queue.mapping.unmap();
    this.#parts.channels.unbind(queue.channel);
  }

  /** What is written for a key: the truth, unless the disk is told to lie. */
  #published(key: string, value: number): string {
    return this.#disk.keyOverrides[key] ?? String(value);
  }

  get #sectors(): number {
    return Math.floor(this.#disk.sizeBytes / RING_SECTOR_BYTES);
  }

  // --- XenStore

  /** xenbus_switch_state: a node that is gone is not brought back. */
  async #switchState(state: XenbusState): Promise<void> {
    if (state === this.state) return;
    const path = `${this.node}/state`;
    const isThere = await this.#parts.store.transaction(async (transaction) => {
      if ((await transaction.tryRead(path)) === undefined) return false;
      await transaction.write(path, String(state));
      return true;
    });
    if (!isThere) return;
    this.#parts.log(
      `${this.node}: ${formatXenbusState(this.state)} -> ${formatXenbusState(state)}`,
    );
    this.state = state;
  }

  /** xenbus_dev_fatal: tells the operator, and closes. */
  async #fail(error: FrontendError): Promise<void> {
    this.#parts.log(`${this.node}: ${error.errno} ${error.message}`);
    const path = `error/${this.node}/error`;
    await this.#parts.store.write(path, `${error.errno} ${error.message}`);
    await this.#switchState(XenbusState.Closing);
  }

  async #isOnline(): Promise<boolean> {
    return (await this.#parts.store.tryRead(`${this.node}/online`)) === '1';
  }
}

/** Turns a key that cannot be parsed into what the driver would say. */
function parsed<Value>(parse: () => Value, message?: string): Value {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
    throw new FrontendError(EINVAL, message ?? error.message);
  }
}
