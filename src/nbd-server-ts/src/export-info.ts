// What a client is told about an export, and what was agreed with it: the two inputs of the request
// check and of the transmission flags. Sections "Transmission flags" and "Block size constraints".
// Plain records of numbers and booleans, so that a worker thread can be sent one.

import assert from 'node:assert/strict';
import { NbdFlag } from './constants.ts';

/** The size and the abilities of an export. All sizes are in bytes. */
export interface ExportInfo {
  /** Size of the export, 0 to 2^53 - 1. */
  readonly sizeBytes: number;
  /** Refuse everything that writes with EPERM, and say so in the flags. */
  readonly isReadOnly: boolean;
  /** FLUSH does something true: it is durable when the reply is sent. */
  readonly canFlush: boolean;
  /** The FUA flag is honoured. */
  readonly canFua: boolean;
  /** TRIM is served. */
  readonly canTrim: boolean;
  /** WRITE_ZEROES is served. */
  readonly canWriteZeroes: boolean;
  /** FAST_ZERO is understood (also when the answer is always ENOTSUP, see `isZeroFast`). */
  readonly canFastZero: boolean;
  /** Zeroing is faster than writing. When false, FAST_ZERO requests get ENOTSUP at once. */
  readonly isZeroFast: boolean;
  /** CACHE is served. */
  readonly canCache: boolean;
  /** A flush on one connection covers what was acknowledged on all of them. */
  readonly canMultiConn: boolean;
  /** The disk spins. */
  readonly isRotational: boolean;
  /** Unit of offsets and lengths, a power of two from 1 to 65536; else the request is refused. */
  readonly minimumBlockBytes: number;
  /** Best request size and alignment, a power of two of at least 512 and the minimum. */
  readonly preferredBlockBytes: number;
  /** Largest payload announced to clients. */
  readonly maxPayloadBytes: number;
  /** Largest READ or WRITE that is served; more than announced, since some clients do not ask. */
  readonly maxRequestBytes: number;
}

/** What the handshake agreed on, which decides the form of requests and replies. */
export interface Agreement {
  /** READ is answered with chunks; DF and BLOCK_STATUS become possible. */
  readonly isStructured: boolean;
  /** Requests and replies have 32-byte headers with 64-bit lengths. Implies `isStructured`. */
  readonly isExtended: boolean;
  /** The client chose at least one metadata context of this export. */
  readonly hasMetaContexts: boolean;
}

/** The agreement of a client that asked for nothing. */
export const SIMPLE_AGREEMENT: Agreement = Object.freeze({
  isStructured: false,
  isExtended: false,
  hasMetaContexts: false,
});

/** 32 MiB, the payload that no peer may treat as an attack. */
export const DEFAULT_MAX_PAYLOAD_BYTES: number = 32 * 1024 * 1024;
/** 64 MiB: real clients were seen to send 49865728 bytes in one request. */
export const DEFAULT_MAX_REQUEST_BYTES: number = 64 * 1024 * 1024;
/** The largest number that may stand in a 32-bit length field. */
const MAX_U32 = 0xffffffff;

/** Completes the fields that were left out with the poorest honest values. */
export function createExportInfo(
  fields: Pick<ExportInfo, 'sizeBytes'> & Partial<ExportInfo>,
): ExportInfo {
  const info: ExportInfo = {
    isReadOnly: false,
    canFlush: false,
    canFua: false,
    canTrim: false,
    canWriteZeroes: false,
    canFastZero: false,
    isZeroFast: false,
    canCache: false,
    canMultiConn: false,
    isRotational: false,
    minimumBlockBytes: 1,
    preferredBlockBytes: 4096,
    maxPayloadBytes: DEFAULT_MAX_PAYLOAD_BYTES,
    maxRequestBytes: DEFAULT_MAX_REQUEST_BYTES,
    ...fields,
  };
  assertExportInfo(info);
  return info;
}

function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}

/** Asserts the rules of the section "Block size constraints". @throws AssertionError */
export function assertExportInfo(info: ExportInfo): void {
  const { sizeBytes, minimumBlockBytes, preferredBlockBytes, maxPayloadBytes } = info;
  assert(
    Number.isSafeInteger(sizeBytes) && sizeBytes >= 0,
    `The size of an export is a whole number from 0 to 2^53 - 1, not ${sizeBytes}.`,
  );
  assert(
    isPowerOfTwo(minimumBlockBytes) && minimumBlockBytes <= 65536,
    `The minimum block size is a power of two from 1 to 65536, not ${minimumBlockBytes}.`,
  );
  assert(
    sizeBytes % minimumBlockBytes === 0,
    `The size of an export is a multiple of its minimum block size, not ${sizeBytes}.`,
  );
  assert(
    isPowerOfTwo(preferredBlockBytes) && preferredBlockBytes >= Math.max(512, minimumBlockBytes),
    `The preferred block size is a power of two, at least 512 and at least the minimum block ` +
      `size, not ${preferredBlockBytes}.`,
  );
  assert(
    Number.isSafeInteger(maxPayloadBytes) &&
      maxPayloadBytes >= preferredBlockBytes &&
      maxPayloadBytes <= MAX_U32,
    `The maximum payload is at least the preferred block size and fits in 32 bits, ` +
      `not ${maxPayloadBytes}.`,
  );
  assert(
    Number.isSafeInteger(info.maxRequestBytes) && info.maxRequestBytes >= maxPayloadBytes,
    `The largest request served is at least the payload announced, not ${info.maxRequestBytes}.`,
  );
}

/**
 * The transmission flags (u16) to send for an export.
 * A read-only export does not offer what only writes, and DF needs structured replies.
 */
export function transmissionFlags(
  info: ExportInfo,
  agreement: Agreement = SIMPLE_AGREEMENT,
): number {
  let flags: number = NbdFlag.HAS_FLAGS;
  if (info.isReadOnly) flags |= NbdFlag.READ_ONLY;
  if (info.canFlush) flags |= NbdFlag.SEND_FLUSH;
  if (info.isRotational) flags |= NbdFlag.ROTATIONAL;
  if (agreement.isStructured) flags |= NbdFlag.SEND_DF;
  if (info.canMultiConn) flags |= NbdFlag.CAN_MULTI_CONN;
  if (info.canCache) flags |= NbdFlag.SEND_CACHE;
  if (info.isReadOnly) return flags;
  if (info.canFua) flags |= NbdFlag.SEND_FUA;
  if (info.canTrim) flags |= NbdFlag.SEND_TRIM;
  if (info.canWriteZeroes) flags |= NbdFlag.SEND_WRITE_ZEROES;
  if (info.canWriteZeroes && info.canFastZero) flags |= NbdFlag.SEND_FAST_ZERO;
  return flags;
}
