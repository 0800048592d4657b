// Decodes request headers into a record that the caller reuses. Section "Request message".
// Allocation-free: called once per request by the data path.
//
//   compact (28 bytes)                 extended (32 bytes)
//    0 u32 magic 0x25609513             0 u32 magic 0x21e41c71
//    4 u16 command flags                4 u16 command flags
//    6 u16 command                      6 u16 command
//    8 u64 cookie                       8 u64 cookie
//   16 u64 offset                      16 u64 offset
//   24 u32 length                      24 u64 length

import { NBD_EXTENDED_REQUEST_MAGIC, NBD_REQUEST_MAGIC, NbdCmd, NbdCmdFlag } from './constants.ts';

const TWO_32 = 0x1_0000_0000;

/**
 * A request header. All fields are Numbers.
 *
 * The cookie is opaque and stays in two u32 halves. `offset` and `lengthBytes` are exact up to
 * 2^53; what lies above is rounded, which never brings it below 2^53, and an export is smaller than
 * that: so `checkRequest` refuses it as out of range, and nobody computes with a rounded value.
 * `offsetHigh` and `offsetLow` keep the exact offset, which an extended reply has to repeat.
 */
export interface NbdRequest {
  /** Bits of NbdCmdFlag, u16. */
  flags: number;
  /** One of NbdCmd, or a number that nobody knows; u16. */
  command: number;
  /** High half of the cookie, u32. */
  cookieHigh: number;
  /** Low half of the cookie, u32. */
  cookieLow: number;
  /** Where the range begins, in bytes; exact up to 2^53. */
  offset: number;
  /** High half of the exact offset, u32. */
  offsetHigh: number;
  /** Low half of the exact offset, u32. */
  offsetLow: number;
  /** How long the range, or with PAYLOAD_LEN the payload, is; exact up to 2^53. */
  lengthBytes: number;
}

/** A record to pass to `decodeRequest`, again and again. */
export function createRequest(): NbdRequest {
  const request: NbdRequest = {
    flags: 0,
    command: 0,
    cookieHigh: 0,
    cookieLow: 0,
    // These two start as doubles, so that V8 keeps unboxed doubles in the fields from the first
    // request on, and a large offset never changes the shape of the record.
    offset: 0.5,
    offsetHigh: 0,
    offsetLow: 0,
    lengthBytes: 0.5,
  };
  request.offset = 0;
  request.lengthBytes = 0;
  return request;
}

function decodeCommonFields(view: DataView, at: number, into: NbdRequest): void {
  into.flags = view.getUint16(at + 4);
  into.command = view.getUint16(at + 6);
  into.cookieHigh = view.getUint32(at + 8);
  into.cookieLow = view.getUint32(at + 12);
  const offsetHigh = view.getUint32(at + 16);
  const offsetLow = view.getUint32(at + 20);
  into.offsetHigh = offsetHigh;
  into.offsetLow = offsetLow;
  into.offset = offsetHigh * TWO_32 + offsetLow;
}

/**
 * Decodes the 28 bytes at `at`. Returns false, and leaves `into` alone, when the magic is wrong:
 * the stream is out of step then and the connection has to be dropped.
 */
export function decodeRequest(view: DataView, at: number, into: NbdRequest): boolean {
  if (view.getUint32(at) !== NBD_REQUEST_MAGIC) return false;
  decodeCommonFields(view, at, into);
  into.lengthBytes = view.getUint32(at + 24);
  return true;
}

/** Decodes the 32 bytes at `at` of a connection that agreed on extended headers. */
export function decodeExtendedRequest(view: DataView, at: number, into: NbdRequest): boolean {
  if (view.getUint32(at) !== NBD_EXTENDED_REQUEST_MAGIC) return false;
  decodeCommonFields(view, at, into);
  into.lengthBytes = view.getUint32(at + 24) * TWO_32 + view.getUint32(at + 28);
  return true;
}

/**
 * The number of payload bytes that follow the header, whether or not the request is good: a refused
 * request drains them. With compact headers that is the length of a WRITE. With extended headers
 * PAYLOAD_LEN says that the length counts payload; a WRITE without that flag breaks the rules, but
 * carries its data all the same.
 */
export function requestPayloadBytes(request: NbdRequest, isExtended = false): number {
  if (request.command === NbdCmd.WRITE) return request.lengthBytes;
  if (isExtended && (request.flags & NbdCmdFlag.PAYLOAD_LEN) !== 0) return request.lengthBytes;
  return 0;
}
