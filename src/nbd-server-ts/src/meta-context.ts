// Metadata contexts: what BLOCK_STATUS can report about an export. Section "Metadata querying".
// Each context is one object in a file of its own; a server is given a list of them.

import type { BlockBackend, MaybePromise } from './backend.ts';

/** Consecutive bytes with the same status. */
export interface Extent {
  /** How many bytes; at least one. */
  readonly lengthBytes: number;
  /** Status bits, whose meaning the context defines. */
  readonly flags: number;
}

/** One kind of information about ranges of an export. */
export interface MetaContext {
  /** Namespace, colon, leaf name: `base:allocation`. */
  readonly name: string;
  /** Whether an export on this backend has the context. */
  isOfferedFor(backend: BlockBackend): boolean;
  /**
   * The extents from `offset` on: at least one, none empty. They may end before the range does;
   * what goes past its end is cut. Adjacent extents may have equal flags, the server joins them.
   */
  extents(
    backend: BlockBackend,
    offset: number,
    lengthBytes: number,
  ): MaybePromise<readonly Extent[]>;
}

/**
 * Joins equal neighbours and cuts at the end of the request, at `maxExtents`, and at the first
 * extent when only one was asked for. Every extent that comes out has at least one byte.
 */
export function shapeExtents(
  extents: readonly Extent[],
  lengthBytes: number,
  maxExtents: number,
): Extent[] {
  const shaped: Extent[] = [];
  let leftBytes = lengthBytes;
  for (const extent of extents) {
    const takenBytes = Math.min(extent.lengthBytes, leftBytes);
    if (takenBytes <= 0) continue;
    leftBytes -= takenBytes;
    const last = shaped.at(-1);
    if (last !== undefined && last.flags === extent.flags) {
      shaped[shaped.length - 1] = {
        lengthBytes: last.lengthBytes + takenBytes,
        flags: last.flags,
      };
    } else if (shaped.length === maxExtents) {
      break;
    } else {
      shaped.push({ lengthBytes: takenBytes, flags: extent.flags });
    }
  }
  return shaped;
}
