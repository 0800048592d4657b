/**
 * Requests to and from bytes (struct blkif_request, _discard and _indirect of
 * xen/include/public/io/blkif.h). Offsets come from layout.ts.
 *
 * Encoders write every byte of the fixed part, pads included, since the back end can read the
 * whole page. They leave the unused tail of a slot alone: it holds an older request or response,
 * which the back end has seen. Sector numbers and counts are in 512-byte units, always.
 *
 * Nothing here allocates, except {@link createRequest}.
 */

import type { BlkifLayout } from './layout.ts';
import {
  BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST,
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  BlkifOp,
  SEGMENT_BYTES,
} from './protocol.ts';
import { readU64, writeU64 } from './u64.ts';

/**
 * Writes a direct request: read, write, barrier. Its `segmentCount` segments are written with
 * {@link encodeSegment} at {@link segmentOffset}.
 */
export function encodeDirectRequest(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  operation: number,
  handle: number,
  id: number,
  firstSector: number,
  segmentCount: number,
): void {
  encodeHead(view, at, layout, operation, segmentCount, handle, id);
  writeU64(view, at + layout.sectorNumber, firstSector);
}

/** Writes BLKIF_OP_FLUSH_DISKCACHE: no sector, no segments. */
export function encodeFlush(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  handle: number,
  id: number,
): void {
  encodeHead(view, at, layout, BlkifOp.BLKIF_OP_FLUSH_DISKCACHE, 0, handle, id);
  writeU64(view, at + layout.sectorNumber, 0);
}

/** Writes an empty BLKIF_OP_WRITE_BARRIER: the flush of back ends that have no other. */
export function encodeEmptyBarrier(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  handle: number,
  id: number,
): void {
  encodeHead(view, at, layout, BlkifOp.BLKIF_OP_WRITE_BARRIER, 0, handle, id);
  writeU64(view, at + layout.sectorNumber, 0);
}

/** Writes BLKIF_OP_DISCARD. `flag` is 0 or BLKIF_DISCARD_SECURE. */
export function encodeDiscard(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  flag: number,
  handle: number,
  id: number,
  firstSector: number,
  sectorCount: number,
): void {
  encodeHead(view, at, layout, BlkifOp.BLKIF_OP_DISCARD, flag, handle, id);
  writeU64(view, at + layout.sectorNumber, firstSector);
  writeU64(view, at + layout.discardSectorCount, sectorCount);
}

/**
 * Writes BLKIF_OP_INDIRECT around `operation`, which is a read or a write. The segments stand in
 * pages of their own; name them with {@link encodeIndirectGref}. The references that are not used
 * are zero.
 */
export function encodeIndirectRequest(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  operation: number,
  handle: number,
  id: number,
  firstSector: number,
  segmentCount: number,
): void {
  view.setUint8(at + layout.operation, BlkifOp.BLKIF_OP_INDIRECT);
  view.setUint8(at + layout.indirectOperation, operation);
  view.setUint16(at + layout.indirectSegmentCount, segmentCount, true);
  // Zeroes the four bytes between nr_segments and id of the aligned layouts; id overwrites them in
  // the packed one.
  view.setUint32(at + 4, 0, true);
  writeU64(view, at + layout.id, id);
  writeU64(view, at + layout.sectorNumber, firstSector);
  for (let tail = layout.indirectHandle; tail < layout.indirectBytes; tail += 4) {
    view.setUint32(at + tail, 0, true);
  }
  view.setUint16(at + layout.indirectHandle, handle, true);
}

/** Writes the grant reference of the `index`-th segment page of the indirect request at `at`. */
export function encodeIndirectGref(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  index: number,
  gref: number,
): void {
  view.setUint32(at + layout.indirectGrefs + index * 4, gref, true);
}

/** Byte offset of the `index`-th segment of the direct request at `at`. */
export function segmentOffset(at: number, layout: BlkifLayout, index: number): number {
  return at + layout.segments + index * SEGMENT_BYTES;
}

/**
 * Writes a segment record, in a direct request or in an indirect page: sectors
 * `firstSector..lastSector` (0..7, both included) of the page `gref`.
 */
export function encodeSegment(
  view: DataView<ArrayBufferLike>,
  at: number,
  gref: number,
  firstSector: number,
  lastSector: number,
): void {
  view.setUint32(at, gref, true);
  // first_sect, last_sect and the two pad bytes as one word.
  view.setUint32(at + 4, firstSector | (lastSector << 8), true);
}

function encodeHead(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  operation: number,
  second: number,
  handle: number,
  id: number,
): void {
  view.setUint8(at + layout.operation, operation);
  view.setUint8(at + layout.segmentCount, second);
  view.setUint16(at + layout.handle, handle, true);
  // The four pad bytes of the aligned layouts; the packed one has the id there, written next.
  view.setUint32(at + 4, 0, true);
  writeU64(view, at + layout.id, id);
}

/** A decoded request, made to be reused. Which fields hold depends on `operation`. */
export interface BlkifRequest {
  operation: number;
  /** The full u64, or INVALID_U64 when a Number cannot hold it. */
  id: number;
  handle: number;
  /** In 512-byte units, or INVALID_U64. */
  firstSector: number;
  /** As sent, not bounded: 0..255 of a direct request, 0..65535 of an indirect one. */
  segmentCount: number;
  /** Segments of a direct request: the first min(segmentCount, 11) hold. */
  readonly segmentGrefs: Uint32Array;
  readonly segmentFirstSectors: Uint8Array;
  readonly segmentLastSectors: Uint8Array;
  /** The operation inside an indirect request. */
  indirectOperation: number;
  /** The segment pages of an indirect request. */
  readonly indirectGrefs: Uint32Array;
  /** Of a discard. */
  discardFlag: number;
  /** Of a discard, in 512-byte units, or INVALID_U64. */
  discardSectorCount: number;
}

/** A record for {@link decodeRequest}. */
export function createRequest(): BlkifRequest {
  return {
    operation: 0,
    id: 0,
    handle: 0,
    firstSector: 0,
    segmentCount: 0,
    segmentGrefs: new Uint32Array(BLKIF_MAX_SEGMENTS_PER_REQUEST),
    segmentFirstSectors: new Uint8Array(BLKIF_MAX_SEGMENTS_PER_REQUEST),
    segmentLastSectors: new Uint8Array(BLKIF_MAX_SEGMENTS_PER_REQUEST),
    indirectOperation: 0,
    indirectGrefs: new Uint32Array(BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST),
    discardFlag: 0,
    discardSectorCount: 0,
  };
}

/**
 * Copies the request at `at` into `into`, reading each field of the shared slot once. Judges
 * nothing: operations, counts and segments are the caller's to check, on the copy.
 */
export function decodeRequest(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  into: BlkifRequest,
): void {
  const operation = view.getUint8(at + layout.operation);
  into.operation = operation;
  into.id = readU64(view, at + layout.id);
  into.firstSector = readU64(view, at + layout.sectorNumber);
  into.indirectOperation = 0;
  into.discardFlag = 0;
  into.discardSectorCount = 0;
  if (operation === BlkifOp.BLKIF_OP_INDIRECT) {
    decodeIndirectPart(view, at, layout, into);
    return;
  }
  into.handle = view.getUint16(at + layout.handle, true);
  if (operation === BlkifOp.BLKIF_OP_DISCARD) {
    into.segmentCount = 0;
    into.discardFlag = view.getUint8(at + layout.discardFlag);
    into.discardSectorCount = readU64(view, at + layout.discardSectorCount);
    return;
  }
  const segmentCount = view.getUint8(at + layout.segmentCount);
  into.segmentCount = segmentCount;
  const held = Math.min(segmentCount, BLKIF_MAX_SEGMENTS_PER_REQUEST);
  decodeSegments(
    view,
    at + layout.segments,
    held,
    into.segmentGrefs,
    into.segmentFirstSectors,
    into.segmentLastSectors,
    0,
  );
}

/** The operation of the request at `at`; of an indirect one that which it stands for. */
export function requestedOperation(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
): number {
  const operation = view.getUint8(at + layout.operation);
  const isIndirect = operation === BlkifOp.BLKIF_OP_INDIRECT;
  return isIndirect ? view.getUint8(at + layout.indirectOperation) : operation;
}

/**
 * Copies the whole request at `sourceAt` to `targetAt` of another ring with the same ABI, under an
 * id of that ring. Returns the id that it had.
 */
export function copyRequest(
  source: DataView<ArrayBufferLike>,
  sourceAt: number,
  target: DataView<ArrayBufferLike>,
  targetAt: number,
  layout: BlkifLayout,
  id: number,
): number {
  for (let at = 0; at < layout.slotBytes; at += 4) {
    target.setUint32(targetAt + at, source.getUint32(sourceAt + at, true), true);
  }
  writeU64(target, targetAt + layout.id, id);
  return readU64(source, sourceAt + layout.id);
}

function decodeIndirectPart(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  into: BlkifRequest,
): void {
  into.indirectOperation = view.getUint8(at + layout.indirectOperation);
  into.segmentCount = view.getUint16(at + layout.indirectSegmentCount, true);
  into.handle = view.getUint16(at + layout.indirectHandle, true);
  for (let index = 0; index < BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST; index++) {
    into.indirectGrefs[index] = view.getUint32(at + layout.indirectGrefs + index * 4, true);
  }
}

/**
 * Copies `count` segment records, from a direct request or an indirect page, into parallel arrays
 * from `intoIndex` on. Each field is read once.
 */
export function decodeSegments(
  view: DataView<ArrayBufferLike>,
  at: number,
  count: number,
  grefs: Uint32Array,
  firstSectors: Uint8Array,
  lastSectors: Uint8Array,
  intoIndex: number,
): void {
  for (let index = 0; index < count; index++) {
    const record = at + index * SEGMENT_BYTES;
    grefs[intoIndex + index] = view.getUint32(record, true);
    firstSectors[intoIndex + index] = view.getUint8(record + 4);
    lastSectors[intoIndex + index] = view.getUint8(record + 5);
  }
}
