// The one place that says whether a request may be served, and with which error it is refused.
// Sections "Request types", "Command flags" and "Error values". Pure and allocation-free: called
// once per request before any work; whoever serves the request afterwards checks nothing again.

import { NbdCmd, NbdCmdFlag, NbdErrno, nbdCmdFlagNames, nbdCmdName } from './constants.ts';
import { type Agreement, type ExportInfo, SIMPLE_AGREEMENT } from './export-info.ts';
import type { NbdRequest } from './request.ts';

const COMPACT_FLAGS =
  NbdCmdFlag.FUA | NbdCmdFlag.NO_HOLE | NbdCmdFlag.DF | NbdCmdFlag.REQ_ONE | NbdCmdFlag.FAST_ZERO;
const EXTENDED_FLAGS = COMPACT_FLAGS | NbdCmdFlag.PAYLOAD_LEN;

/** True when the range of the request does not lie inside an export of `sizeBytes`. */
function isPastTheEnd(request: NbdRequest, sizeBytes: number): boolean {
  // A sum beyond 2^53 is rounded, but never to below 2^53, and sizeBytes is smaller than that.
  return request.offset + request.lengthBytes > sizeBytes;
}

/** Checks the flags: known, allowed on this command, and negotiated. */
function checkFlags(request: NbdRequest, info: ExportInfo, agreement: Agreement): NbdErrno {
  const { flags, command } = request;
  const knownFlags = agreement.isExtended ? EXTENDED_FLAGS : COMPACT_FLAGS;
  if ((flags & ~knownFlags) !== 0) return NbdErrno.EINVAL;
  if ((flags & NbdCmdFlag.FUA) !== 0 && !info.canFua) return NbdErrno.EINVAL;
  if ((flags & NbdCmdFlag.NO_HOLE) !== 0 && command !== NbdCmd.WRITE_ZEROES) return NbdErrno.EINVAL;
  if ((flags & NbdCmdFlag.FAST_ZERO) !== 0) {
    if (command !== NbdCmd.WRITE_ZEROES) return NbdErrno.EINVAL;
    if (!info.canFastZero) return NbdErrno.EINVAL;
  }
  if ((flags & NbdCmdFlag.DF) !== 0) {
    if (command !== NbdCmd.READ) return NbdErrno.EINVAL;
    if (!agreement.isStructured) return NbdErrno.EINVAL;
  }
  if ((flags & NbdCmdFlag.REQ_ONE) !== 0 && command !== NbdCmd.BLOCK_STATUS) return NbdErrno.EINVAL;
  // With extended headers a WRITE announces its data by PAYLOAD_LEN. One that does not carries the
  // data all the same (requestPayloadBytes), and is served, as qemu does. No other command of ours
  // takes a payload.
  if ((flags & NbdCmdFlag.PAYLOAD_LEN) !== 0 && command !== NbdCmd.WRITE) return NbdErrno.EINVAL;
  return NbdErrno.OK;
}

/** True when the range is not made of whole blocks; a server may demand that (minimum > 1). */
function isMisaligned(request: NbdRequest, minimumBlockBytes: number): boolean {
  if (minimumBlockBytes === 1) return false;
  return request.offset % minimumBlockBytes !== 0 || request.lengthBytes % minimumBlockBytes !== 0;
}

/** Checks what only one command demands: that it is offered, its range, its length. */
function checkCommand(request: NbdRequest, info: ExportInfo, agreement: Agreement): NbdErrno {
  switch (request.command) {
    case NbdCmd.READ:
      if (isPastTheEnd(request, info.sizeBytes)) return NbdErrno.EINVAL;
      if (request.lengthBytes > info.maxRequestBytes) return NbdErrno.EINVAL;
      return NbdErrno.OK;
    case NbdCmd.WRITE:
      if (isPastTheEnd(request, info.sizeBytes)) return NbdErrno.ENOSPC;
      if (request.lengthBytes > info.maxRequestBytes) return NbdErrno.EINVAL;
      return NbdErrno.OK;
    case NbdCmd.WRITE_ZEROES:
      if (!info.canWriteZeroes) return NbdErrno.EINVAL;
      if (isPastTheEnd(request, info.sizeBytes)) return NbdErrno.ENOSPC;
      if ((request.flags & NbdCmdFlag.FAST_ZERO) !== 0 && !info.isZeroFast) return NbdErrno.ENOTSUP;
      return NbdErrno.OK;
    case NbdCmd.TRIM:
      if (!info.canTrim) return NbdErrno.EINVAL;
      if (isPastTheEnd(request, info.sizeBytes)) return NbdErrno.EINVAL;
      return NbdErrno.OK;
    case NbdCmd.FLUSH:
      if (!info.canFlush) return NbdErrno.EINVAL;
      if (request.offset !== 0 || request.lengthBytes !== 0) return NbdErrno.EINVAL;
      return NbdErrno.OK;
    case NbdCmd.CACHE:
      if (!info.canCache) return NbdErrno.EINVAL;
      if (isPastTheEnd(request, info.sizeBytes)) return NbdErrno.EINVAL;
      return NbdErrno.OK;
    case NbdCmd.BLOCK_STATUS:
      if (!agreement.hasMetaContexts) return NbdErrno.EINVAL;
      if (isPastTheEnd(request, info.sizeBytes)) return NbdErrno.EINVAL;
      // A good answer holds at least one extent, which cannot describe an empty range.
      if (request.lengthBytes === 0) return NbdErrno.EINVAL;
      return NbdErrno.OK;
    default:
      return NbdErrno.EINVAL;
  }
}

/**
 * Returns 0 when the request may be served, or the NBD errno to answer it with.
 *
 * - EPERM: something that writes, on a read-only export (before all other rules)
 * - EINVAL: unknown command or flag, a flag that is not allowed there or was not negotiated, a
 *   command that was not offered, READ, TRIM, CACHE or BLOCK_STATUS past the end, too long, not
 *   aligned to the minimum block size
 * - ENOSPC: WRITE or WRITE_ZEROES past the end
 * - ENOTSUP: FAST_ZERO where zeroing is not fast
 *
 * A length of zero is good. DISC has no reply, so the caller deals with it before this check.
 * The payload of a refused WRITE (`requestPayloadBytes`) has to be drained by the caller.
 */
export function checkRequest(
  request: NbdRequest,
  info: ExportInfo,
  agreement: Agreement = SIMPLE_AGREEMENT,
): NbdErrno {
  const { command } = request;
  const isWriteLike =
    command === NbdCmd.WRITE || command === NbdCmd.WRITE_ZEROES || command === NbdCmd.TRIM;
  if (isWriteLike && info.isReadOnly) return NbdErrno.EPERM;
  const flagsErrno = checkFlags(request, info, agreement);
  if (flagsErrno !== NbdErrno.OK) return flagsErrno;
  const commandErrno = checkCommand(request, info, agreement);
  if (commandErrno !== NbdErrno.OK) return commandErrno;
  return isMisaligned(request, info.minimumBlockBytes) ? NbdErrno.EINVAL : NbdErrno.OK;
}

/**
 * Says in words why `checkRequest` answered with `errno`: for the text of an error chunk and for
 * the log. Not for the hot path.
 */
export function explainRefusal(
  request: NbdRequest,
  info: ExportInfo,
  errno: number,
  agreement: Agreement = SIMPLE_AGREEMENT,
): string {
  const name = nbdCmdName(request.command);
  if (errno === NbdErrno.EPERM) return `${name} is not possible: the export is read-only.`;
  if (errno === NbdErrno.ENOTSUP) return `${name} would not be faster than writing.`;
  if (checkFlags(request, info, agreement) !== NbdErrno.OK) {
    return `${name} with flags ${nbdCmdFlagNames(request.flags)}: not known, not allowed here, or not agreed on.`;
  }
  const range = `offset ${request.offset}, length ${request.lengthBytes}`;
  if (request.command === NbdCmd.FLUSH && (request.offset !== 0 || request.lengthBytes !== 0)) {
    return `${name} with a range (${range}): both have to be zero.`;
  }
  const isIo = request.command === NbdCmd.READ || request.command === NbdCmd.WRITE;
  const isOffered =
    isIo ||
    checkCommand({ ...request, offset: 0, lengthBytes: 1 }, info, agreement) === NbdErrno.OK;
  if (!isOffered) return `${name} was not offered for this export.`;
  if (isPastTheEnd(request, info.sizeBytes)) {
    return `${name} past the end (${range}, export size ${info.sizeBytes}).`;
  }
  if (isIo && request.lengthBytes > info.maxRequestBytes) {
    return `${name} of ${request.lengthBytes} bytes: at most ${info.maxRequestBytes} are served.`;
  }
  if (isMisaligned(request, info.minimumBlockBytes)) {
    return `${name} not aligned to ${info.minimumBlockBytes} bytes (${range}).`;
  }
  return `${name} refused (${range}).`;
}
