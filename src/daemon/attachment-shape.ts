/**
 * What a connection to a backend means for the parties that do not know Xen: the lanes that move
 * its bytes, the clients that are told of the disk, and people who read the log. Pure.
 */

import { createExportInfo, type ExportEntry } from 'nbd-server-ts/protocol';
import { RING_SECTOR_BYTES } from '../blkif/index.ts';
import {
  type DiskShape,
  type GrantedMemory,
  LANE_CONTEXT_NAMES,
  type LaneRing,
} from '../dataplane/index.ts';
import type { Attachment } from '../frontend/index.ts';
import type { GrantedPages } from '../host/index.ts';
import type { LogDetails } from './log.ts';
import type { LanePages } from './page-budget.ts';
import type { RingPlace } from './shared-queues.ts';

/** Segments of a request that is not indirect. */
const DIRECT_SEGMENTS = 11;
const PREFERRED_BLOCK_BYTES_MIN = 4096;
/** 32 MiB, the payload that no client may take for an attack. */
const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;

/** How the disk behaves, for a lane. */
export function diskShape({ disk }: Attachment): DiskShape {
  // A flush is a kind of write to blkback, which refuses it on a disk that it may only read.
  const canFlush = !disk.isReadOnly && disk.canFlush;
  const canBarrier = !disk.isReadOnly && disk.canBarrier;
  return {
    sectorBytes: disk.sectorSize,
    flush: canFlush ? 'flush-cache' : canBarrier ? 'barrier' : 'none',
    canFallBackToBarrier: canBarrier,
    discard: disk.discard && {
      granularityBytes: disk.discard.granularityBytes,
      alignmentBytes: disk.discard.alignmentBytes,
    },
  };
}

/**
 * The ring of lane `index`, which has pages for the lists of indirect requests, or not. One that is
 * given a `place` in this process for it takes the rest from the queue that it shares.
 */
export function laneRing(
  attachment: Attachment,
  index: number,
  hasIndirect: boolean,
  place?: RingPlace,
): LaneRing {
  const queue = attachment.queues[place === undefined ? index : 0];
  if (queue === undefined) throw new Error(`the backend offers no queue ${index}`);
  const indirectSegments = hasIndirect ? attachment.maxIndirectSegments : 0;
  return {
    address: place?.address ?? queue.ring.address,
    pageCount: place?.pageCount ?? queue.ring.pageCount,
    abi: attachment.abi,
    handle: attachment.vbd.id,
    eventChannel: place?.eventChannel ?? queue.eventChannel,
    maxSegments: Math.max(DIRECT_SEGMENTS, indirectSegments),
  };
}

/** What of granted pages may cross to another thread. */
export function memoryOf({ address, grefs }: GrantedPages): GrantedMemory {
  return { address, grefs };
}

/** What the operator says about an export. */
export interface ExportWish {
  readonly name: string;
  readonly isReadOnly: boolean;
  /** Largest read or write that is served. */
  readonly requestBytesMax: number;
}

/** What clients are told of the disk. */
export function describeExport(attachment: Attachment, wish: ExportWish): ExportEntry {
  const { disk, backendPath, vbd } = attachment;
  const isReadOnly = disk.isReadOnly || wish.isReadOnly;
  const maxPayloadBytes = Math.min(PAYLOAD_BYTES_MAX, wish.requestBytesMax);
  // One that no request may reach is no help to anybody.
  const blockBytes = disk.physicalSectorSize <= maxPayloadBytes ? disk.physicalSectorSize : 0;
  const isWrittenThrough = !isReadOnly && diskShape(attachment).flush === 'none';
  return {
    ...createExportInfo({
      sizeBytes: disk.sectors * RING_SECTOR_BYTES,
      isReadOnly,
      // A backend without any flush writes through, so a flush is done before it is asked for.
      canFlush: true,
      canFua: true,
      canTrim: disk.discard !== undefined,
      canWriteZeroes: true,
      // Zeroes are written like other bytes: a client that wants them fast is told so at once.
      canFastZero: true,
      isZeroFast: false,
      // One ring set, and one flush, serve all connections.
      canMultiConn: true,
      minimumBlockBytes: 1,
      preferredBlockBytes: Math.max(PREFERRED_BLOCK_BYTES_MIN, blockBytes),
      maxPayloadBytes,
      maxRequestBytes: wish.requestBytesMax,
    }),
    name: wish.name,
    description:
      `Xen vbd ${vbd.name} (${vbd.id}), backend ${backendPath}` +
      (isWrittenThrough ? ', which offers no flush: taken as written through' : ''),
    metaContextNames: LANE_CONTEXT_NAMES,
  };
}

/** The connection for people: a line of the log, and what the status page shows. */
export interface AttachmentSummary {
  readonly details: LogDetails;
  readonly message: string;
  readonly ringCount: number;
  /** Of all rings, and of all lanes. */
  readonly slotCount: number;
  readonly poolPageCount: number;
  /** Pools, rings and all else that the backend sees. */
  readonly grantedPageCount: number;
}

/** Sums a connection up. */
export function describeAttachment(
  attachment: Attachment,
  lanes: readonly LanePages[],
): AttachmentSummary {
  const { disk, queues, maxIndirectSegments, vbd } = attachment;
  const sizeBytes = disk.sectors * RING_SECTOR_BYTES;
  const slots = queues[0]?.slotCount ?? 0;
  const grantedPages = lanes.reduce(
    (sum, { pool, zeroes, indirect }) =>
      sum + pool.pageCount + zeroes.pageCount + (indirect?.pageCount ?? 0),
    queues.reduce((sum, { ring }) => sum + ring.pageCount, 0),
  );
  const rings = queues.length === 1 ? '1 ring' : `${queues.length} rings`;
  return {
    details: {
      vbd: vbd.name,
      backend: attachment.backendPath,
      sizeBytes,
      sectorBytes: disk.sectorSize,
      readOnly: disk.isReadOnly,
      queues: queues.length,
      slots,
      maxIndirectSegments,
      persistent: attachment.isPersistent,
      flush: diskShape(attachment).flush,
      discard: disk.discard !== undefined,
      poolPages: lanes[0]?.pool.pageCount,
      grantedPages,
    },
    message:
      `attached to ${vbd.name}: ${sizeBytes} bytes${disk.isReadOnly ? ', read-only' : ''}, ` +
      `${rings} of ${slots} slots, ${grantedPages} pages granted`,
    ringCount: queues.length,
    slotCount: slots * queues.length,
    grantedPageCount: grantedPages,
    poolPageCount: lanes.reduce((sum, { pool }) => sum + pool.pageCount, 0),
  };
}
