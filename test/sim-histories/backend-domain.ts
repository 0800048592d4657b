/**
 * A domain with a block back end: its own connection to XenStore and its own driver. Histories have
 * one, or two when the disk moves from one driver domain to another.
 */

import { XenStoreClient } from 'xenstore-client';
import type { BlkbackDevice, BlkbackDisk } from '../../src/sim/blkback-device.ts';
import { BlkbackDriver } from '../../src/sim/blkback-driver.ts';
import type { EventChannelTable } from '../../src/sim/event-channel-table.ts';
import type { GrantTable } from '../../src/sim/grants.ts';
import type { RingService } from '../../src/sim/ring-service.ts';
import { StoreSocket } from '../../src/sim/store-transport.ts';
import type { Xenstored } from '../../src/sim/xenstored.ts';

export interface BackendDomainParts {
  readonly domid: number;
  readonly xenstored: Xenstored;
  readonly rings: RingService;
  readonly grants: GrantTable;
  readonly channels: EventChannelTable;
  readonly nextQueueId: () => number;
  readonly log: (line: string) => void;
  /** The disk behind a node; the same for every node of this history. */
  readonly disk: () => BlkbackDisk;
}

export class BackendDomain {
  readonly domid: number;
  readonly driver: BlkbackDriver;
  readonly #store: XenStoreClient;

  constructor(parts: BackendDomainParts) {
    this.domid = parts.domid;
    this.#store = new XenStoreClient(new StoreSocket(parts.xenstored, parts.domid));
    this.driver = new BlkbackDriver({ ...parts, store: this.#store, seed: 0 }, parts.disk);
  }

  device(node: string): BlkbackDevice | undefined {
    return this.driver.device(node);
  }

  async close(): Promise<void> {
    await this.driver.stop();
    await this.#store.close();
  }
}
