/**
 * The block back-end driver of one domain: finds the devices that the toolstack makes under
 * `backend/vbd`, probes each, follows its front end, and lets go of those that are gone. What the
 * xenbus bus of a Linux back end does, with blkback-device.ts as its driver.
 */

import { type Watch, type XenStoreClient, XenStoreError } from 'xenstore-client';
import { parseXenbusState, XenbusState } from '../blkif/index.ts';
import { BlkbackDevice, type BlkbackDisk, type BlkbackParts } from './blkback-device.ts';
import { StopMode } from './queue-runner.ts';
import { SerialQueue } from './serial-queue.ts';

/** Gives the disk behind a back end's node, or undefined when the driver has none. */
export type DiskLookup = (node: string) => BlkbackDisk | undefined;

interface Bound {
  readonly device: BlkbackDevice;
  readonly watch: Watch;
}

export class BlkbackDriver {
  readonly #parts: BlkbackParts;
  readonly #findDisk: DiskLookup;
  readonly #store: XenStoreClient;
  readonly #queue = new SerialQueue();
  readonly #devices = new Map<string, Bound>();
  /** Nodes whose driver was unbound by hand: not probed again before they are bound. */
  readonly #unbound = new Set<string>();
  #busWatch: Watch | undefined;
  #isScanQueued = false;

  constructor(parts: BlkbackParts, findDisk: DiskLookup) {
    this.#parts = parts;
    this.#findDisk = findDisk;
    this.#store = parts.store;
  }

  async start(): Promise<void> {
    this.#busWatch = await this.#store.watch('backend/vbd', () => this.#queueScan());
  }

  /** Finishes what is in flight and lets go of every device; writes nothing. */
  async stop(): Promise<void> {
    await this.#busWatch?.close();
    await this.#queue.run(async () => {
      for (const node of this.#devices.keys()) await this.#drop(node, StopMode.DRAIN);
    });
  }

  device(node: string): BlkbackDevice | undefined {
    return this.#devices.get(node)?.device;
  }

  /**
   * Lets go of a device without a word, as an unbind in sysfs does: requests stall. What it took is
   * dealt with, as `mode` says, before this resolves.
   */
  async unbind(node: string, mode: StopMode): Promise<void> {
    this.#unbound.add(node);
    await this.#queue.run(() => this.#drop(node, mode));
  }

  /**
   * Takes an unbound device again: it goes to InitWait under a front end that still says Connected.
   * With `reattach` it then connects to the ring that is still there, as newer kernels do;
   * without it waits until the front end starts anew.
   */
  async bind(node: string, reattach: boolean): Promise<void> {
    this.#unbound.delete(node);
    await this.#queue.run(() => this.#probe(node, reattach));
  }

  /** Runs a task between the driver's own. */
  async run<Result>(task: () => Promise<Result>): Promise<Result> {
    return await this.#queue.run(task);
  }

  /** Looks for devices that came or went, now. */
  async scan(): Promise<void> {
    await this.#queue.run(() => this.#scan());
  }

  #queueScan(): void {
    if (this.#isScanQueued) return;
    this.#isScanQueued = true;
    this.#enqueue(async () => {
      this.#isScanQueued = false;
      await this.#scan();
    });
  }

  /** Compares the directories with the devices. */
  async #scan(): Promise<void> {
    const nodes = new Set<string>();
    for (const domain of await this.#list('backend/vbd')) {
      for (const id of await this.#list(`backend/vbd/${domain}`)) {
        nodes.add(`backend/vbd/${domain}/${id}`);
      }
    }
    for (const node of this.#devices.keys()) {
      if (!nodes.has(node)) await this.#drop(node, StopMode.DRAIN);
    }
    for (const node of this.#unbound) {
      if (!nodes.has(node)) this.#unbound.delete(node);
    }
    for (const node of nodes) {
      const state = parseXenbusState(await this.#store.tryRead(`${node}/state`));
      const isNew = !this.#devices.has(node) && !this.#unbound.has(node);
      if (isNew && state === XenbusState.Initialising) await this.#probe(node, true);
    }
  }

  async #probe(node: string, mayReattach: boolean): Promise<void> {
    const disk = this.#findDisk(node);
    if (disk === undefined || this.#devices.has(node)) return;
    const path = await this.#store.tryRead(`${node}/frontend`);
    const domid = Number(await this.#store.tryRead(`${node}/frontend-id`));
    if (path === undefined || !Number.isInteger(domid)) return;
    const device = new BlkbackDevice(this.#parts, node, { path, domid }, disk);
    await device.probe();
    let isStale = !mayReattach;
    const watch = await this.#store.watch(`${path}/state`, () =>
      this.#enqueue(async () => {
        if (this.#devices.get(node)?.device !== device) return;
        if (isStale && isConnecting(await device.readFrontendState())) return;
        isStale = false;
        await device.frontendChanged();
        if (device.isRemoved) await this.#drop(node, StopMode.DRAIN);
      }),
    );
    this.#devices.set(node, { device, watch });
  }

  async #drop(node: string, mode: StopMode): Promise<void> {
    const bound = this.#devices.get(node);
    if (bound === undefined) return;
    this.#devices.delete(node);
    await bound.watch.close();
    await bound.device.remove(mode);
  }

  async #list(path: string): Promise<string[]> {
    try {
      return await this.#store.directory(path);
    } catch (error) {
      if (error instanceof XenStoreError && error.code === 'ENOENT') return [];
      throw error;
    }
  }

  /** Queues a reaction. One that fails is logged: the driver of a back end outlives its devices. */
  #enqueue(task: () => Promise<void>): void {
    this.#queue.run(task).catch((error: unknown) => {
      if (error instanceof XenStoreError && error.code === 'CLOSED') return;
      this.#parts.log(`blkback: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
}

function isConnecting(state: XenbusState): boolean {
  return state === XenbusState.Initialised || state === XenbusState.Connected;
}
