// Reads a range as data and holes. With chunks a server may say "these bytes are zeroes" in twelve
// bytes instead of sending them. Section "Structured replies": data and hole chunks of one reply do
// not overlap and together cover the request.

import type { BlockBackend } from './backend.ts';
import { NbdState } from './constants.ts';
import { shapeExtents } from './meta-context.ts';

/** Holes smaller than this are read like data: a chunk more costs as much as it saves. */
const MIN_HOLE_BYTES = 4096;
/** A range of more extents than this is read whole. */
const MAX_EXTENTS = 256;

/** A part of a range: its data, or undefined where it reads as zeroes. */
export interface ReadPiece {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly data: Uint8Array | undefined;
}

interface PlannedPiece {
  readonly offset: number;
  lengthBytes: number;
  readonly isHole: boolean;
}

/** Reads a range by pieces, or gives undefined when there is no hole in it worth a chunk. */
export async function readPieces(
  backend: BlockBackend,
  offset: number,
  lengthBytes: number,
): Promise<readonly ReadPiece[] | undefined> {
  if (backend.allocation === undefined || lengthBytes < MIN_HOLE_BYTES) return undefined;
  const extents = await backend.allocation(offset, lengthBytes);
  const plan: PlannedPiece[] = [];
  let at = offset;
  for (const extent of shapeExtents(extents, lengthBytes, MAX_EXTENTS)) {
    const isZero = (extent.flags & NbdState.ZERO) !== 0;
    const isHole = isZero && extent.lengthBytes >= MIN_HOLE_BYTES;
    const last = plan.at(-1);
    if (last !== undefined && last.isHole === isHole) last.lengthBytes += extent.lengthBytes;
    else plan.push({ offset: at, lengthBytes: extent.lengthBytes, isHole });
    at += extent.lengthBytes;
  }
  // The backend does not know all of the range, or there are too many extents in it.
  if (at !== offset + lengthBytes) return undefined;
  if (!plan.some((piece) => piece.isHole)) return undefined;
  const pieces: ReadPiece[] = [];
  for (const { isHole, ...piece } of plan) {
    const data = isHole ? undefined : new Uint8Array(piece.lengthBytes);
    if (data !== undefined) await backend.read(data, piece.offset);
    pieces.push({ ...piece, data });
  }
  return pieces;
}
