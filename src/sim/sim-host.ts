/**
 * The simulated Xen host: a guest's view of Xen (XenHost), and behind it a xenstored, grants, event
 * channels, a toolstack and a block back end, all in this process. Above XenHost nobody can tell:
 * XenStore is packets, rings are bytes in shared memory, events are masked and edge-triggered.
 */

import { type Transport, XenStoreClient } from 'xenstore-client';
import { formatDeviceNumber, parseDeviceNumber } from '../blkif/index.ts';
import {
  type EventChannelHandle,
  type GrantAccess,
  type GrantBudget,
  type GrantedPages,
  HostError,
  type XenHost,
} from '../host/index.ts';
import type { BlkbackDevice, BlkbackDisk } from './blkback-device.ts';
import { BlkbackDriver } from './blkback-driver.ts';
import type { EngineStats } from './blkback-engine.ts';
import { BlkbackThread, type RingService } from './blkback-thread.ts';
import { closeDisk, type DiskFile, type DiskSource, openDisk, resizeDisk } from './disk-file.ts';
import { EventChannelTable } from './event-channel-table.ts';
import { NO_FAULTS, type SimulatedFaults } from './faults.ts';
import { checkFeatures, defaultFeatures, type SimulatedFeatures } from './features.ts';
import { DEFAULT_GRANT_LIMIT_PAGES, GrantTable, type GrantUse } from './grants.ts';
import { StoreDevice, StoreSocket } from './store-transport.ts';
import { Toolstack, type VbdConfig } from './toolstack.ts';
import { type Schedule, Xenstored } from './xenstored.ts';

/** The guest of the simulated host. */
export const GUEST_DOMID = 1;
const BACKEND_DOMID = 0;

/** A virtual disk of the simulated host. */
export type SimulatedDisk = DiskSource & {
  /** Where it appears, e.g. `xvda` or `51712`. */
  readonly vbd: string;
  readonly readOnly?: boolean | undefined;
  readonly deviceType?: 'disk' | 'cdrom' | undefined;
  /** What this disk's back end offers, where it differs from the host's features. */
  readonly features?: Partial<SimulatedFeatures> | undefined;
};

export interface SimulatedHostOptions {
  readonly disks: readonly SimulatedDisk[];
  /** Default: {@link defaultFeatures}, for every disk. */
  readonly features?: SimulatedFeatures | undefined;
  readonly faults?: SimulatedFaults | undefined;
  /** The budget of granted pages. Default 1024, as in Linux. */
  readonly grantLimitPages?: number | undefined;
  /** Told one line at a time what the host does. */
  readonly log?: ((line: string) => void) | undefined;
  /** Decides when xenstored does its next step. Default: soon. */
  readonly schedule?: Schedule | undefined;
  /** Serves the rings. Default: a worker thread. */
  readonly rings?: RingService | undefined;
}

/** What is still held. All zero once every guest has closed its devices. */
export interface LeakReport extends GrantUse {
  readonly openEventChannels: number;
  /** Connections to xenstored that the guest holds. */
  readonly storeConnections: number;
}

/** Controls of the simulated host, for tests and faults. `vbd` is a name such as `xvda`. */
export interface SimulatedControl {
  readonly xenstored: Xenstored;
  /** What the back end's rings did so far. */
  stats(): Promise<EngineStats>;
  leaks(): LeakReport;
  /** Plugs a disk in, as `xl block-attach`. */
  plug(disk: SimulatedDisk): Promise<void>;
  /** Plugs a disk out, as `xl block-detach`; resolves when both directories are gone. */
  unplug(vbd: string): Promise<void>;
  /** Removes both directories of a disk at once, as `xl block-detach --force`. */
  unplugForced(vbd: string): Promise<void>;
  /** Gives the disk another size, in bytes. */
  resize(vbd: string, sizeBytes: number): Promise<void>;
  /** The back end stops serving in silence, as when its driver is unbound. */
  killBackend(vbd: string): Promise<void>;
  /** A killed back end is there again: it goes to InitWait. */
  restartBackend(vbd: string, options?: { readonly reattach?: boolean }): Promise<void>;
  /** Writes a state into the back end's directory behind its back. */
  forceBackendState(vbd: string, state: number): Promise<void>;
  /** The back end's directory vanishes, and with it the back end. */
  removeBackend(vbd: string): Promise<void>;
  /** The back end's directory is made anew, at state 1. */
  recreateBackend(vbd: string): Promise<void>;
  /** The disk's back end, or undefined when there is none at the moment. */
  backendDevice(vbd: string): BlkbackDevice | undefined;
}

/** A simulated host with its controls. */
export interface SimulatedHost extends XenHost {
  readonly control: SimulatedControl;
}

/**
 * Starts a host with its disks plugged in and their back ends waiting for a front end.
 *
 * @throws HostError for a disk that cannot be opened, DeviceNameError for a vbd that is none.
 */
export async function createSimulatedHost(options: SimulatedHostOptions): Promise<SimulatedHost> {
  const host = new Host(options);
  try {
    await host.start(options.disks);
  } catch (error) {
    await host.close();
    throw error;
  }
  return host;
}

interface PluggedDisk {
  readonly config: VbdConfig;
  file: DiskFile;
  backend: BlkbackDisk;
}

class Host implements SimulatedHost, SimulatedControl {
  readonly name = 'simulated Xen host';
  readonly control: SimulatedControl = this;
  readonly xenstored: Xenstored;
  readonly #features: SimulatedFeatures;
  readonly #faults: SimulatedFaults;
  readonly #grants: GrantTable;
  readonly #channels = new EventChannelTable();
  readonly #rings: RingService;
  readonly #store: XenStoreClient;
  readonly #toolstack: Toolstack;
  readonly #driver: BlkbackDriver;
  readonly #disks = new Map<number, PluggedDisk>();
  readonly #guestTransports = new Set<Transport>();
  readonly #log: (line: string) => void;
  #lastQueueId = 0;
  #lastDiskId = 0;
  #isClosed = false;

  constructor(options: SimulatedHostOptions) {
    this.#log = options.log ?? (() => undefined);
    this.#features = options.features ?? defaultFeatures();
    this.#faults = options.faults ?? NO_FAULTS;
    checkFeatures(this.#features);
    this.#grants = new GrantTable(options.grantLimitPages ?? DEFAULT_GRANT_LIMIT_PAGES);
    this.xenstored = new Xenstored({ schedule: options.schedule });
    this.#rings = options.rings ?? new BlkbackThread();
    this.#rings.onBroken = (queueId) => {
      this.#log(`blkback: ring ${queueId}: frontend provided bogus ring requests; halting ring`);
    };
    this.#store = new XenStoreClient(new StoreSocket(this.xenstored, BACKEND_DOMID));
    this.#toolstack = new Toolstack(this.#store);
    this.#driver = new BlkbackDriver(
      {
        domid: BACKEND_DOMID,
        store: this.#store,
        rings: this.#rings,
        grants: this.#grants,
        channels: this.#channels,
        log: this.#log,
        nextQueueId: () => {
          this.#lastQueueId += 1;
          return this.#lastQueueId;
        },
      },
      (node) => this.#findByNode(node)?.backend,
    );
  }

  async start(disks: readonly SimulatedDisk[]): Promise<void> {
    const { errorRate, delayMs } = this.#faults;
    if (errorRate > 0 || delayMs > 0) await this.#rings.setFaults({ errorRate, delayMs });
    await this.#toolstack.createDomain(BACKEND_DOMID, 'Domain-0');
    await this.#toolstack.createDomain(GUEST_DOMID, 'guest');
    this.xenstored.introduce(GUEST_DOMID);
    await this.#driver.start();
    for (const disk of disks) await this.plug(disk);
  }

  // --- XenHost

  openXenStore(): Promise<Transport> {
    if (this.#isClosed) {
      return Promise.reject(new HostError('FAILED', 'The simulated Xen host is closed.'));
    }
    const transport = new StoreDevice(this.xenstored, GUEST_DOMID);
    this.#guestTransports.add(transport);
    return Promise.resolve(transport);
  }

  grantPages(domid: number, pageCount: number, access: GrantAccess): GrantedPages {
    return this.#grants.grant(domid, pageCount, access);
  }

  grantBudget(): GrantBudget {
    return this.#grants.budget();
  }

  bindEventChannel(domid: number): EventChannelHandle {
    return this.#channels.bindUnbound(GUEST_DOMID, domid);
  }

  unbindEventChannel(handle: EventChannelHandle): void {
    this.#channels.unbind(handle);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const transport of this.#guestTransports) transport.close();
    await this.#driver.stop();
    await this.#store.close();
    await this.#rings.close();
    for (const disk of this.#disks.values()) closeDisk(disk.file);
    this.#channels.close();
    this.#grants.close();
  }

  // --- SimulatedControl

  stats(): Promise<EngineStats> {
    return this.#rings.stats();
  }

  leaks(): LeakReport {
    return {
      ...this.#grants.use(),
      openEventChannels: this.#channels.openCount,
      // One is the host's own.
      storeConnections: Math.max(0, this.xenstored.connectionCount - 1),
    };
  }

  async plug(disk: SimulatedDisk): Promise<void> {
    const vbdId = parseDeviceNumber(disk.vbd);
    if (this.#disks.has(vbdId)) {
      throw new HostError('FAILED', `${disk.vbd} is plugged in already; choose another name.`);
    }
    const isCdrom = disk.deviceType === 'cdrom';
    const features = { ...this.#features, ...disk.features };
    checkFeatures(features);
    const isReadOnly = disk.readOnly === true || features.readOnly || isCdrom;
    const file = openDisk(disk, isReadOnly, features.sectorSize);
    const backend = this.#newBackend(file, features, disk.deviceType ?? 'disk');
    const config: VbdConfig = {
      vbdId,
      name: formatDeviceNumber(vbdId),
      guestDomid: GUEST_DOMID,
      backendDomid: BACKEND_DOMID,
      params: file.params,
      isReadOnly: file.isReadOnly,
      deviceType: disk.deviceType ?? 'disk',
    };
    this.#disks.set(vbdId, { config, file, backend });
    this.#log(
      `${config.name}: ${file.params}, ${file.sizeBytes} bytes${file.isReadOnly ? ', read-only' : ''}`,
    );
    await this.#tellRings(backend, file);
    await this.#toolstack.plug(config);
    // The back end is at InitWait when its directory says so.
    await this.#store.waitFor(`${nodeOf(config)}/state`, (state) => state !== '1');
  }

  async unplug(vbd: string): Promise<void> {
    const disk = this.#find(vbd);
    await this.#toolstack.unplug(disk.config);
    await this.#forget(disk);
  }

  async unplugForced(vbd: string): Promise<void> {
    const disk = this.#find(vbd);
    await this.#toolstack.removeBoth(disk.config);
    await this.#forget(disk);
  }

  async resize(vbd: string, sizeBytes: number): Promise<void> {
    const disk = this.#find(vbd);
    disk.file = resizeDisk(disk.file, sizeBytes, disk.backend.features.sectorSize);
    disk.backend = { ...disk.backend, sizeBytes };
    this.#log(`${disk.config.name}: resized to ${sizeBytes} bytes`);
    await this.#tellRings(disk.backend, disk.file);
    await this.#driver.run(async () => {
      await this.backendDevice(vbd)?.resize(disk.backend);
    });
  }

  async killBackend(vbd: string): Promise<void> {
    this.#log(`${vbd}: back end killed`);
    await this.#driver.unbind(nodeOf(this.#find(vbd).config));
  }

  async restartBackend(vbd: string, options: { reattach?: boolean } = {}): Promise<void> {
    this.#log(`${vbd}: back end started`);
    await this.#driver.bind(nodeOf(this.#find(vbd).config), options.reattach ?? false);
  }

  async forceBackendState(vbd: string, state: number): Promise<void> {
    await this.#store.write(`${nodeOf(this.#find(vbd).config)}/state`, String(state));
  }

  async removeBackend(vbd: string): Promise<void> {
    const { config } = this.#find(vbd);
    // A dead driver domain executes nothing any more once its directory is gone.
    await this.#driver.unbind(nodeOf(config));
    await this.#toolstack.removeBackend(config);
    await this.#driver.scan();
  }

  async recreateBackend(vbd: string): Promise<void> {
    await this.#toolstack.restoreBackend(this.#find(vbd).config);
  }

  backendDevice(vbd: string): BlkbackDevice | undefined {
    return this.#driver.device(nodeOf(this.#find(vbd).config));
  }

  // --- disks

  #newBackend(
    file: DiskFile,
    features: SimulatedFeatures,
    deviceType: 'disk' | 'cdrom',
  ): BlkbackDisk {
    this.#lastDiskId += 1;
    return {
      diskId: this.#lastDiskId,
      sizeBytes: file.sizeBytes,
      isReadOnly: file.isReadOnly,
      deviceType,
      features,
    };
  }

  async #tellRings(backend: BlkbackDisk, file: DiskFile): Promise<void> {
    await this.#rings.setDisk(backend.diskId, file.fd, Math.floor(backend.sizeBytes / 512));
  }

  #find(vbd: string): PluggedDisk {
    const disk = this.#disks.get(parseDeviceNumber(vbd));
    if (disk === undefined) throw new HostError('NO_DEVICE', `${vbd} is not plugged in.`);
    return disk;
  }

  #findByNode(node: string): PluggedDisk | undefined {
    for (const disk of this.#disks.values()) {
      if (nodeOf(disk.config) === node) return disk;
    }
    return undefined;
  }

  /** A disk that was plugged out: its file is closed once nothing is served from it. */
  async #forget(disk: PluggedDisk): Promise<void> {
    const node = nodeOf(disk.config);
    await this.#driver.run(async () => undefined);
    if (this.#driver.device(node) !== undefined) await this.#driver.unbind(node);
    this.#disks.delete(disk.config.vbdId);
    closeDisk(disk.file);
  }
}

/** The back end's directory, relative to its domain. */
function nodeOf(config: VbdConfig): string {
  return `backend/vbd/${config.guestDomid}/${config.vbdId}`;
}
