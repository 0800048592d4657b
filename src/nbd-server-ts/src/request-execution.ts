// Carries out one checked request on a backend. Knows nothing of sockets and reply forms: the
// outcome is a value. FUA is the operation and a flush behind it; zeroes that the backend cannot
// write itself are written in slices, with a turn of the event loop between two of them, so that a
// request over 4 GiB does not stop other clients.

import type { BlockBackend } from './backend.ts';
import { NbdCmd, NbdCmdFlag, NbdErrno, nbdCmdName } from './constants.ts';
import { NbdError, nbdErrnoOf } from './errors.ts';
import type { Extent, MetaContext } from './meta-context.ts';
import { shapeExtents } from './meta-context.ts';
import type { NbdRequest } from './request.ts';
import type { SharedFlush } from './shared-flush.ts';
import { type ReadPiece, readPieces } from './sparse-read.ts';

/** Bytes of zeroes in one write. */
const ZERO_WRITE_BYTES = 1024 * 1024;
/** Bytes a backend is asked to zero or trim in one call: a call may be synchronous. */
const RANGE_SLICE_BYTES = 64 * 1024 * 1024;

/**
 * Extents in one answer, below the 2^20 that the specification allows: an answer is memory that no
 * limit counts, and a client asks again for the rest.
 */
const MAX_EXTENTS = 8192;

const zeroes = new Uint8Array(ZERO_WRITE_BYTES);

/** The extents of one context. */
export interface ContextExtents {
  readonly contextId: number;
  readonly extents: readonly Extent[];
}

/** How a request ended. */
export type Outcome =
  | { readonly kind: 'done' }
  | { readonly kind: 'data'; readonly data: Uint8Array }
  | { readonly kind: 'pieces'; readonly pieces: readonly ReadPiece[] }
  | { readonly kind: 'extents'; readonly contexts: readonly ContextExtents[] }
  | {
      readonly kind: 'failed';
      readonly errno: NbdErrno;
      /** For the client; never the message of an unknown error, which may tell too much. */
      readonly text: string;
      readonly offset: number | undefined;
      /** For the log of the server. */
      readonly cause: unknown;
    };

/** What a request is carried out on. */
export interface ExecutionTarget {
  readonly backend: BlockBackend;
  readonly flush: SharedFlush;
  /** A READ may be answered in several chunks, some of them holes. */
  readonly canFragment: boolean;
  /** The contexts the client chose, with the ids it knows them by. */
  readonly contexts: readonly { readonly id: number; readonly context: MetaContext }[];
}

/** Carries out `request`, which `checkRequest` let pass. Never rejects. */
export async function executeRequest(
  target: ExecutionTarget,
  request: Readonly<NbdRequest>,
  payload: Uint8Array,
): Promise<Outcome> {
  try {
    const outcome = await dispatch(target, request, payload);
    if (isForcedUnitAccess(request)) await target.flush.request();
    return outcome;
  } catch (error) {
    const isExplained = error instanceof NbdError;
    return {
      kind: 'failed',
      errno: notSupportedOnlyForFastZero(nbdErrnoOf(error), request),
      text: isExplained ? error.message : `${nbdCmdName(request.command)} failed on the server.`,
      offset: isExplained ? offsetInside(error.offset, request) : undefined,
      cause: error,
    };
  }
}

/** FUA may stand on any command, but only these have an effect that could be lost. */
function isForcedUnitAccess({ command, flags }: Readonly<NbdRequest>): boolean {
  if ((flags & NbdCmdFlag.FUA) === 0) return false;
  return command === NbdCmd.WRITE || command === NbdCmd.WRITE_ZEROES || command === NbdCmd.TRIM;
}

const done: Outcome = { kind: 'done' };

async function dispatch(
  target: ExecutionTarget,
  request: Readonly<NbdRequest>,
  payload: Uint8Array,
): Promise<Outcome> {
  const { backend } = target;
  const { command, offset, lengthBytes } = request;
  if (command === NbdCmd.FLUSH) {
    await target.flush.request();
    return done;
  }
  if (command === NbdCmd.READ) return readRange(target, request);
  if (lengthBytes === 0) return done;
  switch (command) {
    case NbdCmd.WRITE:
      await backend.write?.(payload, offset);
      return done;
    case NbdCmd.WRITE_ZEROES:
      await zeroRange(backend, request);
      return done;
    case NbdCmd.TRIM:
      await inSlices(request, RANGE_SLICE_BYTES, (at, count) => backend.trim?.(at, count));
      return done;
    case NbdCmd.CACHE:
      await backend.cache?.(offset, lengthBytes);
      return done;
    case NbdCmd.BLOCK_STATUS:
      return { kind: 'extents', contexts: await queryContexts(target, request) };
    default:
      throw new NbdError('EINVAL', `${nbdCmdName(command)} cannot be carried out.`);
  }
}

async function readRange(
  { backend, canFragment }: ExecutionTarget,
  { offset, lengthBytes, flags }: Readonly<NbdRequest>,
): Promise<Outcome> {
  if (canFragment && (flags & NbdCmdFlag.DF) === 0) {
    const pieces = await readPieces(backend, offset, lengthBytes);
    if (pieces !== undefined) return { kind: 'pieces', pieces };
  }
  // Zeroed memory, here and in readPieces: a backend that fills less than it should must not show a
  // client what the memory held before.
  const data = new Uint8Array(lengthBytes);
  if (lengthBytes > 0) await backend.read(data, offset);
  return { kind: 'data', data };
}

async function zeroRange(backend: BlockBackend, request: Readonly<NbdRequest>): Promise<void> {
  if (backend.writeZeroes !== undefined) {
    const options = { mayPunchHole: (request.flags & NbdCmdFlag.NO_HOLE) === 0 };
    await inSlices(request, RANGE_SLICE_BYTES, (at, count) =>
      backend.writeZeroes?.(at, count, options),
    );
    return;
  }
  await inSlices(request, ZERO_WRITE_BYTES, (at, count) =>
    backend.write?.(count === ZERO_WRITE_BYTES ? zeroes : zeroes.subarray(0, count), at),
  );
}

async function inSlices(
  request: Readonly<NbdRequest>,
  sliceBytes: number,
  work: (offset: number, lengthBytes: number) => unknown,
): Promise<void> {
  const end = request.offset + request.lengthBytes;
  for (let at = request.offset; at < end; at += sliceBytes) {
    await work(at, Math.min(sliceBytes, end - at));
    if (at + sliceBytes < end) await new Promise((resolve) => setImmediate(resolve));
  }
}

async function queryContexts(
  target: ExecutionTarget,
  request: Readonly<NbdRequest>,
): Promise<readonly ContextExtents[]> {
  const { offset, lengthBytes, flags } = request;
  const maxExtents = (flags & NbdCmdFlag.REQ_ONE) === 0 ? MAX_EXTENTS : 1;
  const reports: ContextExtents[] = [];
  for (const { id, context } of target.contexts) {
    const known = await context.extents(target.backend, offset, lengthBytes);
    const extents = shapeExtents(known, lengthBytes, maxExtents);
    if (extents.length === 0) {
      throw new NbdError('EIO', `The context ${context.name} gave no extents.`);
    }
    reports.push({ contextId: id, extents });
  }
  return reports;
}

/** ENOTSUP may only answer a FAST_ZERO request, which asks for exactly this. */
function notSupportedOnlyForFastZero(errno: NbdErrno, request: Readonly<NbdRequest>): NbdErrno {
  if (errno !== NbdErrno.ENOTSUP) return errno;
  return (request.flags & NbdCmdFlag.FAST_ZERO) !== 0 ? NbdErrno.ENOTSUP : NbdErrno.EIO;
}

/** An error offset must lie inside the request; anything else is left out. */
function offsetInside(
  offset: number | undefined,
  request: Readonly<NbdRequest>,
): number | undefined {
  if (offset === undefined || offset < request.offset) return undefined;
  return offset < request.offset + request.lengthBytes ? offset : undefined;
}
