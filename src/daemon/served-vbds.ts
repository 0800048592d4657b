/**
 * The vbds that this process serves, one export each. The first one is also the export without a
 * name; when it is gone that name is nobody's, since a client must never find another disk under a
 * name that it knows.
 */

import type { ExportCatalog, ExportEntry } from 'nbd-server-ts/protocol';
import type { XenStoreClient } from 'xenstore-client';
import type { LaneEvent, LaneLimits } from '../dataplane/index.ts';
import { type FrontendEnd, listVbds, selectVbd, type VbdDescription } from '../frontend/index.ts';
import type { EventChannelHandle, XenHost } from '../host/index.ts';
import type { VbdUse } from './device-options.ts';
import { UsageError } from './errors.ts';
import type { Logger } from './log.ts';
import type { TakeOver } from './take-over.ts';
import { type DeviceShare, deviceShare } from './transport-wish.ts';
import { VbdDevice } from './vbd-device.ts';

export interface ServedVbdsOptions {
  readonly host: XenHost;
  readonly store: XenStoreClient;
  /** What the command line names; empty for the only free vbd. */
  readonly wanted: readonly string[];
  /** For a single vbd; undefined for the vbd's own name. */
  readonly exportName: string | undefined;
  readonly isReadOnly: boolean;
  readonly isTakenOver: boolean;
  readonly takeOver: TakeOver | undefined;
  readonly use: VbdUse;
  readonly requestBytesMax: number;
  readonly limits: LaneLimits;
  readonly connectionsMax: number;
  /** Memory for the trace of a lane; undefined for no trace. */
  readonly traceLane?: ((vbd: string) => SharedArrayBuffer) | undefined;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly events: ServedVbdsEvents;
}

export interface ServedVbdsEvents {
  clientLeft(event: Extract<LaneEvent, { type: 'closed' }>): void;
  orphaned(channels: readonly EventChannelHandle[]): void;
  /** Something changed that people would like to see. */
  changed(): void;
  /** One vbd is not served any more. */
  ended(device: VbdDevice, end: FrontendEnd): void;
  failed(error: Error): void;
}

export class ServedVbds {
  readonly #options: ServedVbdsOptions;
  /** In the order of the command line; undefined for one that is gone. */
  readonly #devices: (VbdDevice | undefined)[] = [];
  /** Devices that are gone, on their way to their end. */
  readonly #leaving = new Set<Promise<void>>();

  private constructor(options: ServedVbdsOptions) {
    this.#options = options;
  }

  /** Attaches to all of them, or to none. */
  static async open(options: ServedVbdsOptions): Promise<ServedVbds> {
    const vbds = await selectVbds(options);
    if (options.isTakenOver) options.takeOver?.take(vbds);
    const served = new ServedVbds(options);
    const share = deviceShare(options.host.grantBudget().limitPages, vbds.length);
    try {
      for (const vbd of vbds) {
        // The vbd's name tells the lanes of several apart.
        const suffix = vbds.length === 1 ? '' : `-${vbd.name}`;
        served.#devices.push(await served.#openDevice(vbd, share, suffix));
      }
    } catch (error) {
      await served.close(0);
      for (const vbd of vbds) await options.takeOver?.handBack(options.store, vbd);
      throw error;
    }
    return served;
  }

  /** Those that are served now. */
  get devices(): readonly VbdDevice[] {
    return this.#devices.filter((device) => device !== undefined);
  }

  /** What clients see of them. */
  get catalog(): ExportCatalog {
    return {
      find: (name) => {
        if (name === '') return this.#devices[0]?.exportEntry;
        return this.deviceOf(name)?.exportEntry;
      },
      list: (): ExportEntry[] => this.devices.map(({ exportEntry }) => exportEntry),
    };
  }

  /** The device behind an export, by its canonical name. */
  deviceOf(exportName: string): VbdDevice | undefined {
    return this.devices.find(({ exportEntry }) => exportEntry.name === exportName);
  }

  /** Serves `device` no longer, while others go on. Its clients lose their connections. */
  remove(device: VbdDevice): void {
    const index = this.#devices.indexOf(device);
    if (index >= 0) this.#devices[index] = undefined;
    const left = device.close(0).catch((error: Error) => this.#options.events.failed(error));
    this.#leaving.add(left);
  }

  /** Ends them all in good order, see {@link VbdDevice.close}. */
  async close(drainMs: number): Promise<void> {
    const { store, takeOver } = this.#options;
    await Promise.all(
      this.devices.map(async (device) => {
        await device.close(drainMs);
        await takeOver?.handBack(store, device.vbd);
      }),
    );
    await Promise.all(this.#leaving);
  }

  async #openDevice(
    vbd: VbdDescription,
    share: DeviceShare,
    laneNameSuffix: string,
  ): Promise<VbdDevice> {
    const { host, store, exportName, isReadOnly, requestBytesMax, takeOver, use } = this.#options;
    const { limits, connectionsMax, traceLane, log, signal, events } = this.#options;
    return await VbdDevice.open({
      host,
      store,
      vbd,
      holderOf: takeOver?.holderOf ?? (() => undefined),
      wish: { name: exportName ?? vbd.name, isReadOnly, requestBytesMax },
      use,
      limits,
      connectionsMax,
      share,
      laneNameSuffix,
      traceLane,
      log,
      signal,
      events: {
        clientLeft: (event) => events.clientLeft(event),
        orphaned: (channels) => events.orphaned(channels),
        changed: () => events.changed(),
        ended: (end) => this.#deviceEnded(vbd, end),
        failed: (error) => events.failed(error),
      },
    });
  }

  #deviceEnded(vbd: VbdDescription, end: FrontendEnd): void {
    const device = this.devices.find((candidate) => candidate.vbd === vbd);
    if (device !== undefined) this.#options.events.ended(device, end);
  }
}

async function selectVbds(options: ServedVbdsOptions): Promise<VbdDescription[]> {
  const { host, store, wanted, isTakenOver, takeOver } = options;
  // A vbd that is named, and to be taken over, is not refused because the kernel has it.
  const isHolderLess = isTakenOver && wanted.length > 0;
  const vbds = await listVbds(store, async (id) => {
    const holder = isHolderLess ? undefined : await takeOver?.holderOf(id);
    return holder ?? host.vbdClaimant(id);
  });
  if (wanted.length === 0) return [selectVbd(vbds)];
  const selected: VbdDescription[] = [];
  for (const text of wanted) {
    const vbd = selectVbd(vbds, text);
    const earlier = selected.findIndex(({ id }) => id === vbd.id);
    if (earlier >= 0) {
      throw new UsageError(`${wanted[earlier]} and ${text} are the same vbd: name each once`);
    }
    selected.push(vbd);
  }
  return selected;
}
