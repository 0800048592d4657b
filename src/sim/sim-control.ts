/**
 * What can be done to a simulated host from outside the guest: plug disks, resize them, kill and
 * restart their back ends, fail their power, save and restore the guest, and look at what is held.
 */

import type { XenStoreClient } from 'xenstore-client';
import { formatDeviceNumber, parseDeviceNumber, XenbusState } from '../blkif/index.ts';
import { HostError } from '../host/index.ts';
import type { BlkbackDisk } from './blkback-device.ts';
import type { BlkbackDriver } from './blkback-driver.ts';
import type { EngineStats } from './blkback-engine.ts';
import { closeDisk, type DiskFile, type DiskSource, openDisk, resizeDisk } from './disk-file.ts';
import type { EventChannelTable } from './event-channel-table.ts';
import type { FaultTarget } from './fault-schedule.ts';
import { checkFeatures, type SimulatedFeatures } from './features.ts';
import type { GrantTable, GrantUse } from './grants.ts';
import type { Hostility } from './hostile-answers.ts';
import { StopMode } from './queue-runner.ts';
import type { RingService } from './ring-service.ts';
import { backendPathOf, type Toolstack, type VbdConfig } from './toolstack.ts';
import type { Xenstored } from './xenstored.ts';

/** A virtual disk of the simulated host. */
export type SimulatedDisk = DiskSource & {
  /** Where it appears, e.g. `xvda` or `51712`. */
  readonly vbd: string;
  readonly readOnly?: boolean | undefined;
  readonly deviceType?: 'disk' | 'cdrom' | undefined;
  /** What this disk's back end offers, where it differs from the host's features. */
  readonly features?: Partial<SimulatedFeatures> | undefined;
  /** It has a write cache that {@link SimulatedControl.losePower} empties. Slow. */
  readonly isVolatile?: boolean | undefined;
  /** How its back end lies on the ring. Default: it does not, unless the host is hostile. */
  readonly hostility?: Hostility | undefined;
  /**
   * Keys that its back end publishes with another value than the true one: absurd ones, or a
   * feature that is announced and then refused.
   */
  readonly keyOverrides?: Readonly<Record<string, string>> | undefined;
};

/** What is still held. All zero once every guest has closed its devices. */
export interface LeakReport extends GrantUse {
  readonly openEventChannels: number;
  /** Connections to xenstored that the guest holds. */
  readonly storeConnections: number;
  /** Channels from before a restore that were closed: each would have stopped a real kernel. */
  readonly kernelBugs: number;
}

/** Controls of a simulated host, for tests and faults. `vbd` is a name such as `xvda`. */
export interface SimulatedControl {
  readonly xenstored: Xenstored;
  /** The guest's present domain id. */
  readonly guestDomid: number;
  /** What the rings of all back ends did so far. */
  stats(): Promise<EngineStats>;
  leaks(): LeakReport;
  /** Plugs a disk in, as `xl block-attach`. Resolves when its back end waits for a front end. */
  plug(disk: SimulatedDisk): Promise<void>;
  /** Plugs a disk out, as `xl block-detach`; resolves when both directories are gone. */
  unplug(vbd: string): Promise<void>;
  /** Removes both directories of a disk at once, as `xl block-detach --force`. */
  unplugForced(vbd: string): Promise<void>;
  /** Gives the disk another size, in bytes. */
  resize(vbd: string, sizeBytes: number): Promise<void>;
  /**
   * The back end stops serving in silence, as when its driver is unbound. What it has taken is
   * executed before this resolves, and not answered.
   */
  killBackend(vbd: string): Promise<void>;
  /**
   * A killed back end is there again, at InitWait. With `reattach` it connects by itself to a ring
   * that is still there; without, it waits for the front end to start anew.
   */
  restartBackend(vbd: string, options?: { readonly reattach?: boolean }): Promise<void>;
  /** Kills the back end and its disk's cache: writes that were not flushed may be lost. */
  losePower(vbd: string, seed: number): Promise<void>;
  /** Writes a key of the back end's directory behind its back, e.g. `state`. */
  writeBackendKey(vbd: string, key: string, value: string): Promise<void>;
  /** The back end's directory vanishes, and with it the back end. */
  removeBackend(vbd: string): Promise<void>;
  /** The back end's directory is made anew, at state 1. */
  recreateBackend(vbd: string): Promise<void>;
  /** Whether the disk's back end is connected to a front end. */
  isConnected(vbd: string): boolean;
  /**
   * The guest is saved and restored: another domain id, other back ends, grants and event channels
   * that lead nowhere, and watches that fire.
   */
  restoreGuest(): Promise<void>;
}

/** The parts of a host that its controls work with. */
export interface ControlParts {
  readonly xenstored: Xenstored;
  readonly store: XenStoreClient;
  readonly toolstack: Toolstack;
  readonly driver: BlkbackDriver;
  readonly rings: RingService;
  readonly grants: GrantTable;
  readonly channels: EventChannelTable;
  readonly features: SimulatedFeatures;
  /** For disks that do not say themselves. */
  readonly hostility: Hostility | undefined;
  readonly log: (line: string) => void;
  /** The guest goes on as another domain: its connections to xenstored follow. */
  readonly moveGuest: (domid: number) => void;
}

interface PluggedDisk {
  config: VbdConfig;
  file: DiskFile;
  backend: BlkbackDisk;
  readonly isVolatile: boolean;
}

export class HostControl implements SimulatedControl {
  readonly xenstored: Xenstored;
  guestDomid: number;
  readonly #parts: ControlParts;
  readonly #disks = new Map<number, PluggedDisk>();
  #lastDiskId = 0;

  constructor(parts: ControlParts, guestDomid: number) {
    this.#parts = parts;
    this.xenstored = parts.xenstored;
    this.guestDomid = guestDomid;
  }

  stats(): Promise<EngineStats> {
    return this.#parts.rings.stats();
  }

  leaks(): LeakReport {
    const { grants, channels, xenstored } = this.#parts;
    return {
      ...grants.use(),
      openEventChannels: channels.openCount,
      // One is the host's own.
      storeConnections: Math.max(0, xenstored.connectionCount - 1),
      kernelBugs: channels.kernelBugs,
    };
  }

  isConnected(vbd: string): boolean {
    return this.#parts.driver.device(nodeOf(this.#find(vbd).config))?.isConnected === true;
  }

  async plug(disk: SimulatedDisk): Promise<void> {
    const vbdId = parseDeviceNumber(disk.vbd);
    if (this.#disks.has(vbdId)) {
      throw new HostError('FAILED', `${disk.vbd} is plugged in already; choose another name.`);
    }
    const plugged = this.#open(disk, vbdId);
    const { config, file, backend } = plugged;
    this.#disks.set(vbdId, plugged);
    this.#parts.log(
      `${config.name}: ${file.params}, ${file.sizeBytes} bytes${file.isReadOnly ? ', read-only' : ''}`,
    );
    await this.#tellRings(plugged);
    await this.#parts.toolstack.plug(config);
    await this.#waitForBackend(backend, config);
  }

  async unplug(vbd: string): Promise<void> {
    const disk = this.#find(vbd);
    await this.#parts.toolstack.unplug(disk.config);
    await this.#forget(disk);
  }

  async unplugForced(vbd: string): Promise<void> {
    const disk = this.#find(vbd);
    await this.#parts.toolstack.removeBoth(disk.config);
    await this.#forget(disk);
  }

  async resize(vbd: string, sizeBytes: number): Promise<void> {
    const disk = this.#find(vbd);
    disk.file = resizeDisk(disk.file, sizeBytes, disk.backend.features.sectorSize);
    disk.backend = { ...disk.backend, sizeBytes };
    this.#parts.log(`${disk.config.name}: resized to ${sizeBytes} bytes`);
    await this.#tellRings(disk);
    const { driver } = this.#parts;
    await driver.run(async () => {
      await driver.device(nodeOf(disk.config))?.resize(disk.backend);
    });
  }

  async killBackend(vbd: string): Promise<void> {
    const { config } = this.#find(vbd);
    this.#parts.log(`${config.name}: back end killed`);
    await this.#parts.driver.unbind(nodeOf(config), StopMode.CRASH);
  }

  async restartBackend(vbd: string, options: { reattach?: boolean } = {}): Promise<void> {
    const { config } = this.#find(vbd);
    this.#parts.log(`${config.name}: back end started`);
    await this.#parts.driver.bind(nodeOf(config), options.reattach ?? false);
  }

  async losePower(vbd: string, seed: number): Promise<void> {
    const { config, backend } = this.#find(vbd);
    this.#parts.log(`${config.name}: power lost`);
    await this.#parts.driver.unbind(nodeOf(config), StopMode.POWER_LOSS);
    await this.#parts.rings.losePower?.(backend.diskId, seed);
  }

  async writeBackendKey(vbd: string, key: string, value: string): Promise<void> {
    const path = backendPathOf(this.#find(vbd).config);
    await this.#parts.store.transaction(async (transaction) => {
      // A directory that is gone is not brought back.
      if ((await transaction.tryRead(`${path}/state`)) === undefined) return;
      await transaction.write(`${path}/${key}`, value);
    });
  }

  async removeBackend(vbd: string): Promise<void> {
    const { config } = this.#find(vbd);
    const { driver, toolstack } = this.#parts;
    // A driver domain that is dead executes nothing any more once its directory is gone.
    await driver.unbind(nodeOf(config), StopMode.CRASH);
    await toolstack.removeBackend(config);
    await driver.scan();
  }

  async recreateBackend(vbd: string): Promise<void> {
    await this.#parts.toolstack.restoreBackend(this.#find(vbd).config);
  }

  async restoreGuest(): Promise<void> {
    const { toolstack, driver, grants, channels, moveGuest, log } = this.#parts;
    const oldDomid = this.guestDomid;
    log(`domain ${oldDomid} is saved`);
    for (const { config } of this.#disks.values()) {
      await driver.unbind(nodeOf(config), StopMode.CRASH);
      await toolstack.removeBoth(config);
    }
    await driver.scan();
    await toolstack.destroyDomain(oldDomid);
    grants.forgetAll();
    channels.makeStale(oldDomid);
    const domid = oldDomid + 1;
    this.guestDomid = domid;
    await toolstack.createDomain(domid, 'guest');
    for (const disk of this.#disks.values()) {
      disk.config = { ...disk.config, guestDomid: domid };
      await toolstack.plug(disk.config);
    }
    log(`the guest is restored as domain ${domid}`);
    moveGuest(domid);
  }

  /** Closes the files of all disks. Nothing may be served from them any more. */
  close(): void {
    for (const disk of this.#disks.values()) closeDisk(disk.file);
    this.#disks.clear();
  }

  /** The disk behind a node of the driver's. */
  findBackend(node: string): BlkbackDisk | undefined {
    for (const disk of this.#disks.values()) {
      if (nodeOf(disk.config) === node) return disk.backend;
    }
    return undefined;
  }

  /** A disk as the schedule of faults sees it. */
  faultTarget(vbd: string): FaultTarget {
    return {
      vbd,
      isConnected: () => this.#disks.has(parseDeviceNumber(vbd)) && this.isConnected(vbd),
      killBackend: () => this.killBackend(vbd),
      restartBackend: () => this.restartBackend(vbd),
      forceBackendState: (state) => this.writeBackendKey(vbd, 'state', state),
      resize: (sizeBytes) => this.resize(vbd, sizeBytes),
      unplug: () => this.unplug(vbd),
      publish: async (key, value) => {
        await this.writeBackendKey(vbd, key, value);
        if (key !== 'state') {
          await this.writeBackendKey(vbd, 'state', String(XenbusState.Connected));
        }
      },
    };
  }

  #open(disk: SimulatedDisk, vbdId: number): PluggedDisk {
    const deviceType = disk.deviceType ?? 'disk';
    const features = { ...this.#parts.features, ...disk.features };
    checkFeatures(features);
    const isReadOnly = disk.readOnly === true || features.readOnly || deviceType === 'cdrom';
    const file = openDisk(disk, isReadOnly, features.sectorSize);
    this.#lastDiskId += 1;
    return {
      file,
      isVolatile: disk.isVolatile ?? false,
      backend: {
        diskId: this.#lastDiskId,
        sizeBytes: file.sizeBytes,
        isReadOnly: file.isReadOnly,
        deviceType,
        features,
        hostility: disk.hostility ?? this.#parts.hostility,
        keyOverrides: disk.keyOverrides ?? {},
      },
      config: {
        vbdId,
        name: formatDeviceNumber(vbdId),
        guestDomid: this.guestDomid,
        backendDomid: 0,
        params: file.params,
        isReadOnly: file.isReadOnly,
        deviceType,
      },
    };
  }

  async #tellRings({ backend, file, isVolatile }: PluggedDisk): Promise<void> {
    const sectors = Math.floor(backend.sizeBytes / 512);
    await this.#parts.rings.setDisk(backend.diskId, file.fd, sectors, isVolatile);
  }

  async #waitForBackend(backend: BlkbackDisk, config: VbdConfig): Promise<void> {
    const lie = backend.keyOverrides['state'];
    if (lie !== undefined) return;
    await this.#parts.store.waitFor(`${backendPathOf(config)}/state`, (state) => state !== '1');
  }

  #find(vbd: string): PluggedDisk {
    const disk = this.#disks.get(parseDeviceNumber(vbd));
    if (disk === undefined) throw new HostError('NO_DEVICE', `${vbd} is not plugged in.`);
    return disk;
  }

  /** A disk that was plugged out: its file is closed once nothing is served from it. */
  async #forget(disk: PluggedDisk): Promise<void> {
    const { driver } = this.#parts;
    await driver.scan();
    await driver.unbind(nodeOf(disk.config), StopMode.DRAIN);
    this.#disks.delete(disk.config.vbdId);
    closeDisk(disk.file);
    await driver.scan();
  }
}

/** The back end's directory, relative to its domain. */
function nodeOf(config: VbdConfig): string {
  return `backend/vbd/${config.guestDomid}/${config.vbdId}`;
}
