/** `info VBD`: what its backend offers, and what would come of it. */

import {
  type DiskProperties,
  GRANT_PAGE_BYTES,
  hostAbi,
  RING_SECTOR_BYTES,
  slotCount,
  type TransportLimits,
} from '../blkif/index.ts';
import {
  deviceShare,
  formatSize,
  type PageNeed,
  pageNeed,
  type TransportUse,
  transportWish,
} from '../daemon/index.ts';
import { inspectVbd, selectVbd, type VbdInspection } from '../frontend/index.ts';
import { describeDriver } from './drivers.ts';
import type { Guest } from './guest.ts';
import { describeForList, type ListedVbd } from './list.ts';
import { printable } from './table.ts';

/** All that `info --json` prints. */
export interface VbdInfo extends ListedVbd {
  /** Null when it cannot be read; {@link faults} says why. */
  readonly offers: TransportLimits | null;
  /** Null before the first connection: only then the backend tells. */
  readonly disk: DiskInfo | null;
  /** What `serve` would agree on with this backend. */
  readonly wouldNegotiate: Negotiated | null;
  /** What the backend complained of. */
  readonly backendError: string | null;
  /** A sentence for each thing that cannot be read or used. */
  readonly faults: readonly string[];
}

/** The disk in the words of this program. */
export interface DiskInfo {
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly physicalSectorBytes: number;
  readonly isReadOnly: boolean;
  readonly isCdrom: boolean;
  readonly flush: 'flush-cache' | 'barrier' | 'none';
  readonly isPersistent: boolean;
  readonly discard: DiskProperties['discard'] | null;
}

/** A connection as it would be. */
export interface Negotiated {
  readonly queues: number;
  readonly ringPages: number;
  /** Requests that one ring holds. */
  readonly ringSlots: number;
  /** 0 when requests are direct, of 11 segments at most. */
  readonly indirectSegments: number;
  /** Bytes of the largest request. */
  readonly requestBytes: number;
  readonly persistent: boolean;
  readonly grantedPages: PageNeed;
  /** A sentence for each wish that was cut. */
  readonly cuts: readonly string[];
}

const DIRECT_SEGMENTS = 11;

/**
 * Looks at one vbd, also at one that somebody drives.
 *
 * @throws FrontendError when there is none by that name
 */
export async function describeGuestVbd(
  guest: Guest,
  wanted: string,
  use: TransportUse,
): Promise<VbdInfo> {
  const vbds = await guest.vbds();
  const chosen = selectVbd(
    vbds.map((vbd) => ({ ...vbd, holder: undefined })),
    wanted,
  );
  const vbd = vbds.find(({ id }) => id === chosen.id) ?? chosen;
  const share = deviceShare(guest.host.grantBudget().limitPages, 1);
  const inspection = await inspectVbd(guest.store, vbd, transportWish(use, share));
  return {
    ...describeForList(vbd, guest.driverOf(vbd)),
    offers: inspection.limits ?? null,
    disk: inspection.disk === undefined ? null : describeDisk(inspection.disk),
    wouldNegotiate: describeChoice(inspection),
    backendError: inspection.backendError ?? null,
    faults: inspection.faults,
  };
}

function describeDisk(disk: DiskProperties): DiskInfo {
  return {
    sizeBytes: disk.sectors * RING_SECTOR_BYTES,
    sectorBytes: disk.sectorSize,
    physicalSectorBytes: disk.physicalSectorSize,
    isReadOnly: disk.isReadOnly,
    isCdrom: disk.isCdrom,
    flush: disk.canFlush ? 'flush-cache' : disk.canBarrier ? 'barrier' : 'none',
    isPersistent: disk.isPersistent,
    discard: disk.discard ?? null,
  };
}

function describeChoice({ choice, disk }: VbdInspection): Negotiated | null {
  if (choice === undefined) return null;
  const { queueCount, ringPageOrder, maxIndirectSegments, isPersistent, cuts } = choice;
  const ringPages = 2 ** ringPageOrder;
  return {
    queues: queueCount,
    ringPages,
    ringSlots: slotCount(ringPages, hostAbi(process.arch)),
    indirectSegments: maxIndirectSegments,
    requestBytes: Math.max(DIRECT_SEGMENTS, maxIndirectSegments) * GRANT_PAGE_BYTES,
    // Both ends must want it; what the backend wants is known once it was connected.
    persistent: isPersistent && disk?.isPersistent !== false,
    grantedPages: pageNeed(queueCount, ringPageOrder, maxIndirectSegments > 0),
    cuts,
  };
}

/** The same for people: one line for each thing, under three headings. */
export function formatInfo(info: VbdInfo): string {
  const { backend, offers, disk, wouldNegotiate: agreed } = info;
  const lines = [
    `${info.name} (${info.number}), ${info.deviceType}, mode ${info.mode ?? 'unknown'}`,
    row('driven by', describeDriver(info.drivenBy)),
    row('state', `${info.state}, backend ${backend.state}`),
    row('backend', `${backend.path ?? 'none'} in domain ${backend.domain ?? '?'}`),
    ...(backend.params === null ? [] : [row('backed by', backend.params)]),
    ...(info.backendError === null ? [] : [row('its error', info.backendError)]),
    'the disk',
    ...(disk === null
      ? [row('not known', 'the backend tells it when it is connected for the first time')]
      : diskRows(disk)),
    'the backend offers',
    ...(offers === null
      ? [row('not known', 'see below')]
      : [
          row('rings', `${offers.maxQueues} of up to ${2 ** offers.maxRingPageOrder} pages`),
          row('indirect', segments(offers.maxIndirectSegments)),
        ]),
    ...(agreed === null ? [] : ['we would use', ...agreedRows(agreed)]),
    ...info.faults.map((fault) => `! ${fault}`),
  ];
  return lines.map((line) => `${printable(line)}\n`).join('');
}

function row(name: string, value: string): string {
  return `  ${name.padEnd(12)}${value}`;
}

function segments(count: number): string {
  if (count === 0) return 'none: requests of 11 segments (44 KiB) at most';
  return `${count} segments (${formatSize(count * GRANT_PAGE_BYTES)}) a request`;
}

function diskRows(disk: DiskInfo): string[] {
  const { discard } = disk;
  return [
    row('size', `${formatSize(disk.sizeBytes)} (${disk.sizeBytes} bytes)`),
    row('sectors', `${disk.sectorBytes} bytes, physical ${disk.physicalSectorBytes}`),
    row('writable', disk.isReadOnly ? 'no' : 'yes'),
    row('flush', disk.flush === 'none' ? 'none: writes are written through' : disk.flush),
    row('discard', discard === null ? 'no' : `in units of ${discard?.granularityBytes} bytes`),
    row('persistent', disk.isPersistent ? 'it keeps grants mapped' : 'no'),
  ];
}

function agreedRows(agreed: Negotiated): string[] {
  const { queues, ringPages, ringSlots, indirectSegments, grantedPages } = agreed;
  const rings = queues === 1 ? '1 ring' : `${queues} rings`;
  return [
    row('rings', `${rings} of ${ringPages} pages, ${ringSlots} slots each`),
    row('indirect', segments(indirectSegments)),
    row('persistent', agreed.persistent ? 'yes' : 'no'),
    row('granted', `${grantedPages.goodPages} pages, at least ${grantedPages.leastPages}`),
    ...agreed.cuts.map((cut) => row('cut', cut)),
  ];
}
