/**
 * The simulated Xen host: a guest's view of Xen (XenHost), and behind it a xenstored, grants, event
 * channels, a toolstack and a block back end, all in this process. Above XenHost nobody can tell:
 * XenStore is packets, rings are bytes in shared memory, events are masked and edge-triggered.
 */

import { type Transport, XenStoreClient } from 'xenstore-client';
import {
  type EventChannelHandle,
  type GrantAccess,
  type GrantBudget,
  type GrantedPages,
  HostError,
  type VbdClaim,
  type XenHost,
} from '../host/index.ts';
import { BlkbackDriver } from './blkback-driver.ts';
import { BlkbackThreads } from './blkback-threads.ts';
import { EventChannelTable } from './event-channel-table.ts';
import { FaultSchedule, type SimulatedTimers, systemTimers } from './fault-schedule.ts';
import { NO_FAULTS, type SimulatedFaults } from './faults.ts';
import { checkFeatures, defaultFeatures, type SimulatedFeatures } from './features.ts';
import { DEFAULT_GRANT_LIMIT_PAGES, GrantTable } from './grants.ts';
import { ALL_RING_LIES } from './hostile-answers.ts';
import type { RingService } from './ring-service.ts';
import { HostControl, type SimulatedControl, type SimulatedDisk } from './sim-control.ts';
import { StoreDevice, StoreSocket } from './store-transport.ts';
import { Toolstack } from './toolstack.ts';
import { type Schedule, Xenstored } from './xenstored.ts';

/** The guest of a new simulated host. A restored guest has another id. */
export const GUEST_DOMID = 1;
const BACKEND_DOMID = 0;
/** Part of the answers of a hostile back end that are lies. */
const HOSTILE_RATE = 0.001;

/** How a simulated host is set up. */
export interface SimulatedHostOptions {
  readonly disks: readonly SimulatedDisk[];
  /** Default: what Linux offers, for every disk. */
  readonly features?: SimulatedFeatures | undefined;
  readonly faults?: SimulatedFaults | undefined;
  /** The budget of granted pages. Default 1024, as in Linux. */
  readonly grantLimitPages?: number | undefined;
  /** Told one line at a time what the host does. */
  readonly log?: ((line: string) => void) | undefined;
  /** Decides when xenstored does its next step. Default: soon. */
  readonly schedule?: Schedule | undefined;
  /**
   * How long the back end looks for requests before it sleeps, while that pays. Default 0: not at
   * all.
   */
  readonly busyPollUs?: number | undefined;
  /** Serves the rings. Default: worker threads. */
  readonly rings?: RingService | undefined;
  /** What the faults by the clock run on. Default: the system's. */
  readonly timers?: SimulatedTimers | undefined;
}

/** A simulated host with its controls. */
export interface SimulatedHost extends XenHost {
  readonly control: SimulatedControl;
}

/**
 * Starts a host with its disks plugged in and their back ends waiting for a front end.
 *
 * @throws HostError for a disk that cannot be opened, DeviceNameError for a vbd that is none,
 * SimulationOptionError for features that cannot be.
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

class Host implements SimulatedHost {
  readonly name = 'simulated Xen host';
  readonly control: HostControl;
  readonly #faults: SimulatedFaults;
  readonly #grants: GrantTable;
  readonly #channels = new EventChannelTable();
  readonly #xenstored: Xenstored;
  readonly #rings: RingService;
  readonly #store: XenStoreClient;
  readonly #toolstack: Toolstack;
  readonly #driver: BlkbackDriver;
  readonly #schedule: FaultSchedule;
  readonly #guestTransports = new Set<StoreDevice>();
  /** Nobody outside this process can have one. */
  readonly #claimed = new Set<number>();
  #lastQueueId = 0;
  #isClosed = false;

  constructor(options: SimulatedHostOptions) {
    const log = options.log ?? (() => undefined);
    const features = options.features ?? defaultFeatures();
    const faults = options.faults ?? NO_FAULTS;
    checkFeatures(features);
    this.#faults = faults;
    this.#grants = new GrantTable(options.grantLimitPages ?? DEFAULT_GRANT_LIMIT_PAGES);
    this.#xenstored = new Xenstored({ schedule: options.schedule });
    this.#rings = options.rings ?? new BlkbackThreads(options.busyPollUs ?? 0);
    this.#rings.onBroken = (queueId) => {
      log(`blkback: ring ${queueId}: frontend provided bogus ring requests; halting ring`);
    };
    this.#store = new XenStoreClient(new StoreSocket(this.#xenstored, BACKEND_DOMID));
    this.#toolstack = new Toolstack(this.#store);
    this.#driver = new BlkbackDriver(
      {
        domid: BACKEND_DOMID,
        store: this.#store,
        rings: this.#rings,
        grants: this.#grants,
        channels: this.#channels,
        log,
        seed: faults.seed,
        nextQueueId: () => {
          this.#lastQueueId += 1;
          return this.#lastQueueId;
        },
      },
      (node) => this.control.findBackend(node),
    );
    this.control = new HostControl(
      {
        xenstored: this.#xenstored,
        store: this.#store,
        toolstack: this.#toolstack,
        driver: this.#driver,
        rings: this.#rings,
        grants: this.#grants,
        channels: this.#channels,
        features,
        hostility: faults.hostile ? { rate: HOSTILE_RATE, lies: ALL_RING_LIES } : undefined,
        log,
        moveGuest: (domid) => this.#moveGuest(domid),
      },
      GUEST_DOMID,
    );
    this.#schedule = new FaultSchedule(faults, options.timers ?? systemTimers, log);
  }

  async start(disks: readonly SimulatedDisk[]): Promise<void> {
    const { errorRate, delayMs } = this.#faults;
    if (errorRate > 0 || delayMs > 0) {
      await this.#rings.setFaults({ errorRate, delayMs });
    }
    await this.#toolstack.createDomain(BACKEND_DOMID, 'Domain-0');
    await this.#toolstack.createDomain(GUEST_DOMID, 'guest');
    this.#xenstored.introduce(GUEST_DOMID);
    await this.#driver.start();
    for (const disk of disks) {
      await this.control.plug(disk);
      this.#schedule.start(this.control.faultTarget(disk.vbd));
    }
  }

  openXenStore(): Promise<Transport> {
    if (this.#isClosed) {
      return Promise.reject(new HostError('FAILED', 'The simulated Xen host is closed.'));
    }
    const transport = new StoreDevice(this.#xenstored, this.control.guestDomid);
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
    return this.#channels.bindUnbound(this.control.guestDomid, domid);
  }

  unbindEventChannel(handle: EventChannelHandle): void {
    this.#channels.unbind(handle);
  }

  /** The table closes its descriptors at the end, which here is no harm. */
  disownEventChannel(_handle: EventChannelHandle): void {}

  claimVbd(vbdId: number): VbdClaim | undefined {
    if (this.#claimed.has(vbdId)) return undefined;
    this.#claimed.add(vbdId);
    return { release: () => this.#claimed.delete(vbdId) };
  }

  vbdClaimant(vbdId: number): string | undefined {
    return this.#claimed.has(vbdId) ? 'this process' : undefined;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#schedule.stop();
    for (const transport of this.#guestTransports) transport.close();
    await this.#driver.stop();
    await this.#store.close();
    // An unplug that no front end answers ends here.
    await this.#schedule.settled();
    await this.#rings.close();
    this.control.close();
    this.#channels.close();
    this.#grants.close();
  }

  #moveGuest(domid: number): void {
    this.#xenstored.introduce(domid);
    for (const transport of this.#guestTransports) {
      if (transport.isClosed) this.#guestTransports.delete(transport);
      else transport.restore(domid);
    }
    this.#xenstored.release(domid - 1);
  }
}
