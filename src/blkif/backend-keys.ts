/**
 * What the back end tells in XenStore (xen/include/public/io/blkif.h, "Backend XenBus Nodes"), as
 * typed values. Reading the keys is the caller's; this is pure.
 */

import {
  isPowerOfTwo,
  KeyError,
  type KeyValues,
  MAX_U32,
  parseFlagKey,
  parseNumberKey,
} from './keys.ts';
import {
  MAX_INDIRECT_SEGMENTS,
  MAX_RING_PAGE_ORDER,
  RING_SECTOR_BYTES,
  VdiskInfo,
} from './protocol.ts';

/** Keys that the back end writes. */
export const BackendKey = {
  // Before InitWait.
  MAX_RING_PAGE_ORDER: 'max-ring-page-order',
  /** The old spelling: a count of pages. */
  MAX_RING_PAGES: 'max-ring-pages',
  MULTI_QUEUE_MAX_QUEUES: 'multi-queue-max-queues',
  FEATURE_MAX_INDIRECT_SEGMENTS: 'feature-max-indirect-segments',
  // Before Connected.
  SECTORS: 'sectors',
  SECTOR_SIZE: 'sector-size',
  PHYSICAL_SECTOR_SIZE: 'physical-sector-size',
  INFO: 'info',
  FEATURE_PERSISTENT: 'feature-persistent',
  FEATURE_FLUSH_CACHE: 'feature-flush-cache',
  FEATURE_BARRIER: 'feature-barrier',
  FEATURE_DISCARD: 'feature-discard',
  DISCARD_GRANULARITY: 'discard-granularity',
  DISCARD_ALIGNMENT: 'discard-alignment',
  DISCARD_SECURE: 'discard-secure',
  // By the toolstack.
  MODE: 'mode',
  PARAMS: 'params',
  ONLINE: 'online',
  DEVICE_TYPE: 'device-type',
} as const;
export type BackendKey = (typeof BackendKey)[keyof typeof BackendKey];

/** Keys to read once the back end is at InitWait. */
export const TRANSPORT_KEYS: readonly BackendKey[] = [
  BackendKey.MAX_RING_PAGE_ORDER,
  BackendKey.MAX_RING_PAGES,
  BackendKey.MULTI_QUEUE_MAX_QUEUES,
  BackendKey.FEATURE_MAX_INDIRECT_SEGMENTS,
];

/** Keys to read once the back end is Connected, and never before: it writes them late. */
export const DISK_KEYS: readonly BackendKey[] = [
  BackendKey.SECTORS,
  BackendKey.SECTOR_SIZE,
  BackendKey.PHYSICAL_SECTOR_SIZE,
  BackendKey.INFO,
  BackendKey.FEATURE_PERSISTENT,
  BackendKey.FEATURE_FLUSH_CACHE,
  BackendKey.FEATURE_BARRIER,
  BackendKey.FEATURE_DISCARD,
  BackendKey.DISCARD_GRANULARITY,
  BackendKey.DISCARD_ALIGNMENT,
  BackendKey.DISCARD_SECURE,
  BackendKey.MODE,
  BackendKey.DEVICE_TYPE,
];

/** Sectors beyond which a length in bytes would pass 2^53 and stop being exact. */
const MAX_SECTORS = 2 ** 53 / RING_SECTOR_BYTES;
const MIN_SECTOR_SIZE = 512;
const MAX_SECTOR_SIZE = 4096;
/** Larger physical sectors are not a hint that anybody could follow. */
const MAX_PHYSICAL_SECTOR_SIZE = 2 ** 25;

/** What a back end at InitWait offers for the transport, cut to what the protocol can do. */
export interface TransportLimits {
  /** 0..4: rings have up to 2^this pages. */
  readonly maxRingPageOrder: number;
  /** 1 or more. */
  readonly maxQueues: number;
  /** 0 when there are no indirect requests; at most 4096. */
  readonly maxIndirectSegments: number;
}

/**
 * Parses {@link TRANSPORT_KEYS}. Missing keys mean the plainest transport. An offer that is larger
 * than the protocol allows is cut; a value that is no number is refused.
 *
 * @throws KeyError
 */
export function parseTransportLimits(keys: KeyValues): TransportLimits {
  const order = keys.has(BackendKey.MAX_RING_PAGE_ORDER)
    ? parseNumberKey(keys, BackendKey.MAX_RING_PAGE_ORDER, MAX_U32)
    : Math.floor(
        Math.log2(Math.max(1, parseNumberKey(keys, BackendKey.MAX_RING_PAGES, MAX_U32, 1))),
      );
  const queues = parseNumberKey(keys, BackendKey.MULTI_QUEUE_MAX_QUEUES, MAX_U32, 1);
  const segments = parseNumberKey(keys, BackendKey.FEATURE_MAX_INDIRECT_SEGMENTS, MAX_U32, 0);
  return {
    maxRingPageOrder: Math.min(order, MAX_RING_PAGE_ORDER),
    maxQueues: Math.max(1, queues),
    maxIndirectSegments: Math.min(segments, MAX_INDIRECT_SEGMENTS),
  };
}

/** How a disk discards. */
export interface DiscardProperties {
  /** A multiple of the sector size. */
  readonly granularityBytes: number;
  /** Offset of the first discard unit, below the granularity. */
  readonly alignmentBytes: number;
  /** Whether BLKIF_DISCARD_SECURE may be used. */
  readonly isSecure: boolean;
}

/** What a Connected back end says of its disk. */
export interface DiskProperties {
  /** Size in 512-byte units, a multiple of the sector size. At most 2^53 bytes. */
  readonly sectors: number;
  /** Logical block in bytes: a power of two in 512..4096. All requests are multiples of it. */
  readonly sectorSize: number;
  /** Preferred block in bytes: a power of two, at least the sector size. */
  readonly physicalSectorSize: number;
  /** By `info`, by `mode`, or because it is a CD-ROM. */
  readonly isReadOnly: boolean;
  readonly isCdrom: boolean;
  readonly isRemovable: boolean;
  /** BLKIF_OP_FLUSH_DISKCACHE works. */
  readonly canFlush: boolean;
  /** BLKIF_OP_WRITE_BARRIER works. */
  readonly canBarrier: boolean;
  /** The back end keeps grants mapped, if the front end also said so. */
  readonly isPersistent: boolean;
  /** Undefined when BLKIF_OP_DISCARD does not work. */
  readonly discard: DiscardProperties | undefined;
}

/**
 * Parses {@link DISK_KEYS}.
 *
 * @throws KeyError for a value that is no number, or a disk that cannot be: no sectors (unless it
 * is a CD-ROM or removable: then the drive is empty), more than 2^53 bytes, a sector size that is
 * not a power of two in 512..4096.
 */
export function parseDiskProperties(keys: KeyValues): DiskProperties {
  const info = parseNumberKey(keys, BackendKey.INFO, MAX_U32, 0);
  const isCdrom =
    (info & VdiskInfo.VDISK_CDROM) !== 0 || keys.get(BackendKey.DEVICE_TYPE) === 'cdrom';
  const isRemovable = (info & VdiskInfo.VDISK_REMOVABLE) !== 0;
  const mode = keys.get(BackendKey.MODE);
  const sectorSize = parseSectorSize(keys);
  return {
    sectors: parseSectors(keys, sectorSize, isCdrom || isRemovable),
    sectorSize,
    physicalSectorSize: parsePhysicalSectorSize(keys, sectorSize),
    isReadOnly:
      isCdrom ||
      (info & VdiskInfo.VDISK_READONLY) !== 0 ||
      (mode !== undefined && !mode.includes('w')),
    isCdrom,
    isRemovable,
    canFlush: parseFlagKey(keys, BackendKey.FEATURE_FLUSH_CACHE),
    canBarrier: parseFlagKey(keys, BackendKey.FEATURE_BARRIER),
    isPersistent: parseFlagKey(keys, BackendKey.FEATURE_PERSISTENT),
    discard: parseDiscard(keys, sectorSize),
  };
}

/** Parses `sectors` alone, for a resize. @throws KeyError as {@link parseDiskProperties}. */
export function parseSectors(keys: KeyValues, sectorSize: number, mayBeEmpty: boolean): number {
  const told = parseNumberKey(keys, BackendKey.SECTORS, MAX_SECTORS);
  // A last block that is cut short cannot be reached by any request.
  const sectors = told - (told % (sectorSize / RING_SECTOR_BYTES));
  if (sectors === 0 && !mayBeEmpty) {
    throw new KeyError(
      BackendKey.SECTORS,
      String(told),
      'a disk without a whole sector cannot be served',
    );
  }
  return sectors;
}

function parseSectorSize(keys: KeyValues): number {
  const size = parseNumberKey(keys, BackendKey.SECTOR_SIZE, MAX_U32, MIN_SECTOR_SIZE);
  if (!isPowerOfTwo(size) || size < MIN_SECTOR_SIZE || size > MAX_SECTOR_SIZE) {
    throw new KeyError(
      BackendKey.SECTOR_SIZE,
      String(size),
      `a power of two from ${MIN_SECTOR_SIZE} to ${MAX_SECTOR_SIZE} was expected`,
    );
  }
  return size;
}

/** A hint only: one that cannot be followed is dropped, since nothing can go wrong without it. */
function parsePhysicalSectorSize(keys: KeyValues, sectorSize: number): number {
  const size = parseNumberKey(keys, BackendKey.PHYSICAL_SECTOR_SIZE, MAX_U32, sectorSize);
  return isPowerOfTwo(size) && size >= sectorSize && size <= MAX_PHYSICAL_SECTOR_SIZE
    ? size
    : sectorSize;
}

function parseDiscard(keys: KeyValues, sectorSize: number): DiscardProperties | undefined {
  if (!parseFlagKey(keys, BackendKey.FEATURE_DISCARD)) {
    return undefined;
  }
  // Both are bytes. A missing or zero granularity means the sector.
  const offered = parseNumberKey(keys, BackendKey.DISCARD_GRANULARITY, MAX_U32, 0);
  const granularityBytes = Math.max(offered, sectorSize);
  const alignmentBytes = parseNumberKey(keys, BackendKey.DISCARD_ALIGNMENT, MAX_U32, 0);
  if (granularityBytes % sectorSize !== 0) {
    throw new KeyError(
      BackendKey.DISCARD_GRANULARITY,
      String(offered),
      `a multiple of the sector size ${sectorSize} was expected`,
    );
  }
  if (alignmentBytes % sectorSize !== 0) {
    throw new KeyError(
      BackendKey.DISCARD_ALIGNMENT,
      String(alignmentBytes),
      `a multiple of the sector size ${sectorSize} was expected`,
    );
  }
  return {
    granularityBytes,
    alignmentBytes: alignmentBytes % granularityBytes,
    isSecure: parseFlagKey(keys, BackendKey.DISCARD_SECURE),
  };
}
