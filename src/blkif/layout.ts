/**
 * Where each field of a request and a response lies, for each ABI of xen/include/public/io/blkif.h.
 * The ABI is chosen by the frontend in the `protocol` key. x86_64 and arm align u64 to 8 bytes;
 * x86_32 aligns it to 4, so that the fields after the first four bytes move up.
 *
 *   field            x86_64, arm   x86_32
 *   request size     112           108
 *   response size    16            12
 *   id               8             4
 *   sector_number    16            12
 *   segments         24            20
 *
 * All fields are little-endian. A ring slot is the union of a request and a response.
 */

import { GRANT_PAGE_BYTES } from './protocol.ts';

/** Values of the `protocol` key (xen/include/public/io/protocols.h). */
export const BlkifAbi = {
  X86_32: 'x86_32-abi',
  X86_64: 'x86_64-abi',
  ARM: 'arm-abi',
} as const;
export type BlkifAbi = (typeof BlkifAbi)[keyof typeof BlkifAbi];

/** Byte offsets within a slot, and sizes. */
export interface BlkifLayout {
  readonly abi: BlkifAbi;
  /** Size of a ring slot, which is the size of a direct request. */
  readonly slotBytes: number;
  /** u8, in every request. */
  readonly operation: 0;
  /** u8 nr_segments of a direct request. */
  readonly segmentCount: 1;
  /** u16 handle of a direct request and of a discard. */
  readonly handle: 2;
  /** u64 id, in every request. */
  readonly id: number;
  /** u64 sector_number, in every request. */
  readonly sectorNumber: number;
  /** First of eleven segment records of a direct request. */
  readonly segments: number;
  /** u8 flag of a discard. */
  readonly discardFlag: 1;
  /** u64 nr_sectors of a discard. */
  readonly discardSectorCount: number;
  /** u8 indirect_op of an indirect request. */
  readonly indirectOperation: 1;
  /** u16 nr_segments of an indirect request. */
  readonly indirectSegmentCount: 2;
  /** u16 handle of an indirect request. */
  readonly indirectHandle: number;
  /** First of eight u32 indirect_grefs. */
  readonly indirectGrefs: number;
  /** Bytes of an indirect request that have a meaning. */
  readonly indirectBytes: 64;
  /** Size of a response. */
  readonly responseBytes: number;
}

/** Offsets of a response, the same in every ABI. */
export const RESPONSE_ID = 0;
export const RESPONSE_OPERATION = 8;
export const RESPONSE_STATUS = 10;

const ALIGNED_LAYOUT = {
  slotBytes: 112,
  operation: 0,
  segmentCount: 1,
  handle: 2,
  id: 8,
  sectorNumber: 16,
  segments: 24,
  discardFlag: 1,
  discardSectorCount: 24,
  indirectOperation: 1,
  indirectSegmentCount: 2,
  indirectHandle: 24,
  indirectGrefs: 28,
  indirectBytes: 64,
  responseBytes: 16,
} as const;

const PACKED_LAYOUT = {
  slotBytes: 108,
  operation: 0,
  segmentCount: 1,
  handle: 2,
  id: 4,
  sectorNumber: 12,
  segments: 20,
  discardFlag: 1,
  discardSectorCount: 20,
  indirectOperation: 1,
  indirectSegmentCount: 2,
  indirectHandle: 20,
  indirectGrefs: 24,
  indirectBytes: 64,
  responseBytes: 12,
} as const;

const LAYOUTS: Readonly<Record<BlkifAbi, BlkifLayout>> = {
  [BlkifAbi.X86_64]: { abi: BlkifAbi.X86_64, ...ALIGNED_LAYOUT },
  [BlkifAbi.ARM]: { abi: BlkifAbi.ARM, ...ALIGNED_LAYOUT },
  [BlkifAbi.X86_32]: { abi: BlkifAbi.X86_32, ...PACKED_LAYOUT },
};

/** The layout of an ABI. */
export function blkifLayout(abi: BlkifAbi): BlkifLayout {
  return LAYOUTS[abi];
}

/** The ABI that a `protocol` key names, or undefined when the value is none of the three. */
export function parseBlkifAbi(protocol: string): BlkifAbi | undefined {
  switch (protocol) {
    case BlkifAbi.X86_32:
    case BlkifAbi.X86_64:
    case BlkifAbi.ARM:
      return protocol;
    default:
      return undefined;
  }
}

/**
 * The ABI of this process, from Node's `process.arch`.
 *
 * @throws RangeError when Xen has no ABI for that architecture.
 */
export function hostAbi(arch: string): BlkifAbi {
  switch (arch) {
    case 'x64':
      return BlkifAbi.X86_64;
    case 'arm64':
    case 'arm':
      return BlkifAbi.ARM;
    case 'ia32':
      return BlkifAbi.X86_32;
    default:
      throw new RangeError(
        `The block interface of Xen is not defined for the architecture ${arch}; ` +
          'use a guest on x64, arm64, arm or ia32.',
      );
  }
}

/** The shared ring header, in the first 64 bytes of the first page; slots follow. */
export const RING_HEADER_BYTES = 64;

/**
 * How many slots a ring of `ringPageCount` pages has: the largest power of two that fits, since
 * an index is turned into a slot by a mask.
 */
export function slotCount(ringPageCount: number, abi: BlkifAbi): number {
  const room = ringPageCount * GRANT_PAGE_BYTES - RING_HEADER_BYTES;
  const fitting = Math.floor(room / LAYOUTS[abi].slotBytes);
  return 2 ** Math.floor(Math.log2(fitting));
}
