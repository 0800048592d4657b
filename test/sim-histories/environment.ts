/**
 * Everything around the program under test: XenStore, the toolstack, the domains with back ends,
 * the disk, and the guest's kernel. All of it runs on the scheduler of one history.
 */

import { XenStoreClient } from 'xenstore-client';
import type { BlkbackDisk } from '../../src/sim/blkback-device.ts';
import { EventChannelTable } from '../../src/sim/event-channel-table.ts';
import { GrantMap } from '../../src/sim/grant-map.ts';
import { GrantTable } from '../../src/sim/grants.ts';
import type { RunnerFaults } from '../../src/sim/queue-runner.ts';
import { StoreSocket } from '../../src/sim/store-transport.ts';
import { Toolstack, type VbdConfig } from '../../src/sim/toolstack.ts';
import { Xenstored } from '../../src/sim/xenstored.ts';
import { BackendDomain } from './backend-domain.ts';
import { CachedDisk } from './cached-disk.ts';
import { GuestHost } from './guest-host.ts';
import type { HistoryPlan } from './plan.ts';
import type { Scheduler } from './scheduler.ts';
import { SteppedRings } from './stepped-rings.ts';

export const VBD_ID = 51728;
const FIRST_GUEST = 1;
/** The driver domain that the disk may move to. */
const OTHER_BACKEND = 300;
const GRANT_LIMIT_PAGES = 320;

export interface EnvironmentOptions {
  readonly scheduler: Scheduler;
  readonly plan: HistoryPlan;
  readonly report: (what: string) => void;
  /** Somebody may have to wake: a lane or a back end. */
  readonly poke: () => void;
  /** The front end broke a ring. */
  readonly ringBroken: (queueId: number) => void;
}

export class Environment {
  readonly scheduler: Scheduler;
  readonly plan: HistoryPlan;
  readonly xenstored: Xenstored;
  readonly store: XenStoreClient;
  readonly toolstack: Toolstack;
  readonly grants: GrantTable;
  readonly channels: EventChannelTable = new EventChannelTable();
  readonly disk: CachedDisk;
  readonly rings: SteppedRings;
  readonly faults: RunnerFaults;
  readonly guest: GuestHost;
  readonly backends: ReadonlyMap<number, BackendDomain>;
  vbd: VbdConfig;
  backendDisk: BlkbackDisk;
  /** A page may be given back while the back end still has it mapped: its directory is gone. */
  isDeferringAllowed = false;
  #queueId = 0;

  constructor({ scheduler, plan, report, poke, ringBroken }: EnvironmentOptions) {
    this.scheduler = scheduler;
    this.plan = plan;
    this.xenstored = new Xenstored({
      schedule: (task) =>
        scheduler.soon(() => {
          scheduler.touch();
          task();
        }),
    });
    this.store = new XenStoreClient(new StoreSocket(this.xenstored, 0));
    this.toolstack = new Toolstack(this.store);
    this.grants = new GrantTable(GRANT_LIMIT_PAGES);
    this.faults = { errorRate: plan.errorRate, delayMs: plan.delayMs };
    const { view, pagesAddress } = new GrantMap(this.grants.placement, 0);
    const pages = {
      address: pagesAddress,
      bytes: Buffer.from(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength),
    };
    const { flush, barrier } = plan.features;
    this.disk = new CachedDisk(plan.sizeBytes, plan.maxBytes, pages, !flush && !barrier);
    this.rings = new SteppedRings({
      scheduler,
      disk: this.disk,
      faults: this.faults,
      refusesFlushes: plan.refusesFlushes,
      served: poke,
    });
    this.rings.onBroken = ringBroken;
    this.guest = new GuestHost(
      {
        xenstored: this.xenstored,
        grants: this.grants,
        channels: this.channels,
        nowMs: () => scheduler.nowMs(),
        report,
        deferred: (count) => {
          if (this.isDeferringAllowed) return;
          report(`${count} pages were given back that the back end has mapped`);
        },
      },
      FIRST_GUEST,
    );
    this.backendDisk = {
      diskId: 1,
      sizeBytes: plan.sizeBytes,
      isReadOnly: false,
      deviceType: 'disk',
      features: plan.features,
      hostility: undefined,
      keyOverrides: {},
    };
    this.vbd = {
      vbdId: VBD_ID,
      name: 'xvdb',
      guestDomid: FIRST_GUEST,
      backendDomid: 0,
      params: 'disk',
      isReadOnly: false,
      deviceType: 'disk',
    };
    this.backends = new Map(
      [0, OTHER_BACKEND].map((domid) => [domid, this.#newBackend(domid)] as const),
    );
  }

  #newBackend(domid: number): BackendDomain {
    const { scheduler } = this;
    return new BackendDomain({
      domid,
      xenstored: this.xenstored,
      rings: this.rings,
      grants: this.grants,
      channels: this.channels,
      nextQueueId: () => {
        this.#queueId += 1;
        return this.#queueId;
      },
      log: (line) => scheduler.trace(`dom${domid}`, line),
      disk: () => this.backendDisk,
    });
  }

  /** Connections to xenstored that are not the guest's. */
  get ownConnections(): number {
    return 1 + this.backends.size;
  }

  /** The domain that the keys name as the disk's. */
  get backend(): BackendDomain {
    return this.backends.get(this.vbd.backendDomid) as BackendDomain;
  }

  /** The domain that the disk can move to. */
  get otherBackendDomid(): number {
    return this.vbd.backendDomid === 0 ? OTHER_BACKEND : 0;
  }

  /** The back end's directory, relative to its domain. */
  get node(): string {
    return `backend/vbd/${this.vbd.guestDomid}/${VBD_ID}`;
  }

  get backendPath(): string {
    return `/local/domain/${this.vbd.backendDomid}/${this.node}`;
  }

  get frontendPath(): string {
    return `/local/domain/${this.vbd.guestDomid}/device/vbd/${VBD_ID}`;
  }

  /** Boots: domains, drivers, and the disk plugged in. */
  async start(): Promise<void> {
    await this.toolstack.createDomain(0, 'Domain-0');
    await this.toolstack.createDomain(FIRST_GUEST, 'guest');
    for (const { domid, driver } of this.backends.values()) {
      if (domid !== 0) {
        await this.toolstack.createDomain(domid, 'driver');
        this.xenstored.introduce(domid);
      }
      await driver.start();
    }
    this.xenstored.introduce(FIRST_GUEST);
    await this.toolstack.plug(this.vbd);
  }

  /** Writes a key of the back end's directory behind its back, unless the directory is gone. */
  async writeBackendKey(key: string, value: string): Promise<void> {
    const path = this.backendPath;
    await this.store.transaction(async (transaction) => {
      if ((await transaction.tryRead(`${path}/state`)) === undefined) return;
      await transaction.write(`${path}/${key}`, value);
    });
  }

  /** Writes another state over Connected, as somebody with a shell could. */
  async forceState(state: string): Promise<void> {
    const path = `${this.backendPath}/state`;
    await this.store.transaction(async (transaction) => {
      if ((await transaction.tryRead(path)) === '4') await transaction.write(path, state);
    });
  }

  /** Lets these domains read the front end's directory. */
  async admit(domids: readonly number[]): Promise<void> {
    const permissions = [
      { domid: this.vbd.guestDomid, access: 'none' as const },
      ...domids.map((domid) => ({ domid, access: 'read' as const })),
    ];
    const path = this.frontendPath;
    await this.store.transaction(async (transaction) => {
      const names = await transaction.directory(path);
      await transaction.setPermissions(path, permissions);
      for (const name of names) await transaction.setPermissions(`${path}/${name}`, permissions);
    });
  }

  /** Ends the back ends and closes everything. Returns whether given-back memory was touched. */
  async close(): Promise<void> {
    for (const backend of this.backends.values()) await backend.close();
    await this.store.close();
  }

  /** Gives the memory back; nothing may run any more. */
  free(): boolean {
    const isTouched = this.guest.endQuarantine();
    this.channels.close();
    this.grants.close();
    return isTouched;
  }
}
