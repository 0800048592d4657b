// What the server needs of a disk, and what it announces for it.

import { createExportInfo, type ExportInfo } from './export-info.ts';
import type { Extent } from './meta-context.ts';

/** An answer now or later. */
export type MaybePromise<T> = T | Promise<T>;

/**
 * A block device to serve. `read` is all it takes; every other method is a capability that is
 * announced to clients when the method is there.
 *
 * The server checks ranges, alignment and permissions before it calls: offsets and lengths lie
 * inside the device and lengths are not zero. Calls overlap, also on the same range, and may finish
 * in any order. A call fails by throwing or rejecting, best with an NbdError (see `nbdErrnoOf`).
 */
export interface BlockBackend {
  /** Bytes of the device. Read for each new client, so a device may grow. */
  readonly sizeBytes: number;
  /** Refuse what writes. Default: true when there is no `write`. */
  readonly isReadOnly?: boolean;
  /** The unit of all offsets and lengths, a power of two from 1 to 65536. Default 1. */
  readonly minimumBlockBytes?: number;
  /** The best request size, a power of two of at least 512. Default 4096. */
  readonly preferredBlockBytes?: number;
  /** The disk spins. Default false. */
  readonly isRotational?: boolean;
  /**
   * Several connections see one device, and a flush covers what was acknowledged on all of them.
   * Default true, since all connections of a server share this object.
   */
  readonly canMultiConn?: boolean;
  /** `writeZeroes` is faster than `write`, so FAST_ZERO is honoured. Default false. */
  readonly isZeroFast?: boolean;

  /** Fills all of `target` from `offset`. */
  read(target: Uint8Array, offset: number): MaybePromise<void>;
  /** Stores all of `source` at `offset`; the memory is only valid until the call is done. */
  write?(source: Uint8Array, offset: number): MaybePromise<void>;
  /** Returns when everything written before the call is on stable storage. */
  flush?(): MaybePromise<void>;
  /** The range is no longer needed; doing nothing is good too. */
  trim?(offset: number, lengthBytes: number): MaybePromise<void>;
  /** Zeroes a range; the server writes zeroes itself where this is missing. */
  writeZeroes?(
    offset: number,
    lengthBytes: number,
    options: { readonly mayPunchHole: boolean },
  ): MaybePromise<void>;
  /** The range will be read soon. */
  cache?(offset: number, lengthBytes: number): MaybePromise<void>;
  /**
   * What is allocated and what reads as zeroes, as NbdState bits, from `offset` on. At least one
   * extent; they may end before the range does. Report what is known, never a guess.
   */
  allocation?(offset: number, lengthBytes: number): MaybePromise<readonly Extent[]>;
}

/** The limits and choices that the owner of the server adds to what the backend can do. */
export interface ExportInfoOptions {
  /** Refuse what writes, also where the backend could. Default false. */
  readonly isReadOnly?: boolean;
  /** Largest payload announced to clients, in bytes. Default 32 MiB. */
  readonly maxPayloadBytes?: number;
  /** Largest READ or WRITE that is served, in bytes; not less than announced. Default 64 MiB. */
  readonly maxRequestBytes?: number;
}

/** What to announce for a backend. */
export function exportInfoOf(backend: BlockBackend, options: ExportInfoOptions = {}): ExportInfo {
  const { maxPayloadBytes, maxRequestBytes } = options;
  const isReadOnly =
    options.isReadOnly === true ||
    (backend.isReadOnly ?? backend.write === undefined) ||
    backend.write === undefined;
  const minimumBlockBytes = backend.minimumBlockBytes ?? 1;
  const canFlush = backend.flush !== undefined;
  return createExportInfo({
    sizeBytes: backend.sizeBytes,
    isReadOnly,
    canFlush,
    // FUA is served as the operation and a flush behind it.
    canFua: canFlush,
    canTrim: backend.trim !== undefined,
    // Where the backend cannot, the server writes zeroes itself.
    canWriteZeroes: true,
    // Offered even where it is never fast: the quick refusal tells a copying client not to zero a
    // target that it is going to overwrite.
    canFastZero: true,
    isZeroFast: backend.writeZeroes !== undefined && backend.isZeroFast === true,
    canCache: backend.cache !== undefined,
    canMultiConn: backend.canMultiConn ?? true,
    isRotational: backend.isRotational ?? false,
    minimumBlockBytes,
    preferredBlockBytes: backend.preferredBlockBytes ?? Math.max(4096, minimumBlockBytes),
    ...(maxPayloadBytes === undefined ? {} : { maxPayloadBytes }),
    ...(maxRequestBytes === undefined ? {} : { maxRequestBytes }),
  });
}
