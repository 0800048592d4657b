/**
 * The constants of the block interface, in the spelling of xen/include/public/io/blkif.h, so that
 * a search for the header's word finds the use. Names for logs stand beside each set.
 */

/** Operations: the first byte of a request, echoed in its response. */
export const BlkifOp = {
  BLKIF_OP_READ: 0,
  BLKIF_OP_WRITE: 1,
  BLKIF_OP_WRITE_BARRIER: 2,
  BLKIF_OP_FLUSH_DISKCACHE: 3,
  /** Kept for SLES kernels; never sent. */
  BLKIF_OP_RESERVED_1: 4,
  BLKIF_OP_DISCARD: 5,
  BLKIF_OP_INDIRECT: 6,
} as const;
export type BlkifOp = (typeof BlkifOp)[keyof typeof BlkifOp];

/** Results: the signed 16-bit status of a response. There are no others. */
export const BlkifStatus = {
  BLKIF_RSP_OKAY: 0,
  BLKIF_RSP_ERROR: -1,
  BLKIF_RSP_EOPNOTSUPP: -2,
} as const;
export type BlkifStatus = (typeof BlkifStatus)[keyof typeof BlkifStatus];

/** Bits of the backend's `info` key. */
export const VdiskInfo = {
  VDISK_CDROM: 0x1,
  VDISK_REMOVABLE: 0x2,
  VDISK_READONLY: 0x4,
} as const;
export type VdiskInfo = (typeof VdiskInfo)[keyof typeof VdiskInfo];

/** Bit 0 of the `flag` byte of a discard request: the blocks must not be recoverable. */
export const BLKIF_DISCARD_SECURE = 0x1;

/** Segments that a direct request can hold. */
export const BLKIF_MAX_SEGMENTS_PER_REQUEST = 11;
/** Segment pages that an indirect request can name. */
export const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8;

/** A grant page, also in a guest whose own pages are larger. */
export const GRANT_PAGE_BYTES = 4096;
/** The unit of `sectors`, `sector_number`, `first_sect` and `last_sect`, whatever `sector-size`. */
export const RING_SECTOR_BYTES = 512;
/** Ring sectors in a grant page: first_sect and last_sect are 0..7. */
export const RING_SECTORS_PER_PAGE = 8;
/** A segment record, in a direct request as in an indirect page. */
export const SEGMENT_BYTES = 8;
/** Segment records in one indirect page. */
export const SEGMENTS_PER_INDIRECT_PAGE = 512;
/** The most segments that an indirect request can have: 8 pages of 512. */
export const MAX_INDIRECT_SEGMENTS = 4096;
/** Rings have at most 2^4 pages (XENBUS_MAX_RING_GRANT_ORDER of Linux). */
export const MAX_RING_PAGE_ORDER = 4;

const OPERATION_NAMES: readonly string[] = [
  'BLKIF_OP_READ',
  'BLKIF_OP_WRITE',
  'BLKIF_OP_WRITE_BARRIER',
  'BLKIF_OP_FLUSH_DISKCACHE',
  'BLKIF_OP_RESERVED_1',
  'BLKIF_OP_DISCARD',
  'BLKIF_OP_INDIRECT',
];

/** The header's name of an operation, or `operation 9` for one it does not know. */
export function blkifOpName(operation: number): string {
  return OPERATION_NAMES[operation] ?? `operation ${operation}`;
}

/** The header's name of a status, or `status 7` for one it does not know. */
export function blkifStatusName(status: number): string {
  switch (status) {
    case BlkifStatus.BLKIF_RSP_OKAY:
      return 'BLKIF_RSP_OKAY';
    case BlkifStatus.BLKIF_RSP_ERROR:
      return 'BLKIF_RSP_ERROR';
    case BlkifStatus.BLKIF_RSP_EOPNOTSUPP:
      return 'BLKIF_RSP_EOPNOTSUPP';
    default:
      return `status ${status}`;
  }
}

/** Whether a status is one of the three that exist. */
export function isBlkifStatus(status: number): status is BlkifStatus {
  return status <= 0 && status >= BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
}
