/**
 * The handshake of an NBD client, for one export by NBD_OPT_GO (doc/proto.md of the NBD project). A
 * generator that is given bytes: it yields what to send and how many bytes it wants next, so it
 * needs no socket.
 */

import {
  GREETING_BYTES,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_MAX_STRING_BYTES,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  NbdClientFlag,
  NbdHandshakeFlag,
  NbdInfo,
  NbdOpt,
  NbdRep,
  nbdRepName,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC_HIGH,
  OPTION_REPLY_MAGIC_LOW,
} from 'nbd-server-ts/protocol';

/** What a server says of an export. */
export interface ExportDescription {
  readonly sizeBytes: bigint;
  /** Transmission flags. */
  readonly flags: number;
  /** The smallest request it wants, in bytes; 1 when it says nothing. */
  readonly minimumBlockBytes: number;
}

/** A server that refuses, with its reason, or that does not speak the protocol. */
export class NegotiationError extends Error {
  override readonly name = 'NegotiationError';
  /** The server is stopping, or is not ready: it may be asked again. */
  readonly isTemporary: boolean;

  constructor(message: string, isTemporary = false) {
    super(message);
    this.isTemporary = isTemporary;
  }
}

/** Bytes to send, and how many bytes to receive next. */
export interface NegotiationStep {
  readonly send: Uint8Array | undefined;
  readonly receiveBytes: number;
}

/** Yields steps, is given what was received, and returns the description. */
export type ClientNegotiation = Generator<NegotiationStep, ExportDescription, Uint8Array>;

/** Negotiates `exportName`; the empty name is the server's default. @throws NegotiationError */
export function* negotiate(exportName: string): ClientNegotiation {
  const greeting = viewOf(yield { send: undefined, receiveBytes: GREETING_BYTES });
  const isNewstyle =
    greeting.getUint32(0) === NBDMAGIC_HIGH &&
    greeting.getUint32(4) === NBDMAGIC_LOW &&
    greeting.getUint32(8) === IHAVEOPT_HIGH &&
    greeting.getUint32(12) === IHAVEOPT_LOW;
  if (!isNewstyle || (greeting.getUint16(16) & NbdHandshakeFlag.FIXED_NEWSTYLE) === 0) {
    throw new NegotiationError('this is no NBD server, or one of very long ago');
  }
  let send: Uint8Array | undefined = encodeGo(exportName, greeting.getUint16(16));
  let description: ExportDescription | undefined;
  let minimumBlockBytes = 1;
  for (;;) {
    const header = viewOf(yield { send, receiveBytes: OPTION_REPLY_HEADER_BYTES });
    send = undefined;
    const { type, length } = decodeReplyHeader(header);
    const data = length === 0 ? new Uint8Array(0) : yield { send, receiveBytes: length };
    if (type === NbdRep.ACK) break;
    if (type !== NbdRep.INFO) throw refusal(type, data);
    const info = viewOf(data);
    const kind = length >= 2 ? info.getUint16(0) : undefined;
    if (kind === NbdInfo.EXPORT && length >= 12) {
      description = {
        sizeBytes: info.getBigUint64(2),
        flags: info.getUint16(10),
        minimumBlockBytes,
      };
    } else if (kind === NbdInfo.BLOCK_SIZE && length >= 14) {
      minimumBlockBytes = info.getUint32(2);
    }
  }
  if (description === undefined)
    throw new NegotiationError('the server says nothing of the export');
  return { ...description, minimumBlockBytes };
}

function encodeGo(exportName: string, handshakeFlags: number): Uint8Array {
  const name = Buffer.from(exportName);
  const bytes = Buffer.alloc(4 + OPTION_HEADER_BYTES + 4 + name.length + 4);
  const { C_FIXED_NEWSTYLE, C_NO_ZEROES } = NbdClientFlag;
  const hasNoZeroes = (handshakeFlags & NbdHandshakeFlag.NO_ZEROES) !== 0;
  bytes.writeUInt32BE(hasNoZeroes ? C_FIXED_NEWSTYLE | C_NO_ZEROES : C_FIXED_NEWSTYLE, 0);
  bytes.writeUInt32BE(IHAVEOPT_HIGH, 4);
  bytes.writeUInt32BE(IHAVEOPT_LOW, 8);
  bytes.writeUInt32BE(NbdOpt.GO, 12);
  bytes.writeUInt32BE(4 + name.length + 4, 16);
  bytes.writeUInt32BE(name.length, 20);
  name.copy(bytes, 24);
  // One kind of information beside that of the export itself.
  bytes.writeUInt16BE(1, 24 + name.length);
  bytes.writeUInt16BE(NbdInfo.BLOCK_SIZE, 26 + name.length);
  return bytes;
}

function decodeReplyHeader(header: DataView): { readonly type: number; readonly length: number } {
  const isReply =
    header.getUint32(0) === OPTION_REPLY_MAGIC_HIGH &&
    header.getUint32(4) === OPTION_REPLY_MAGIC_LOW &&
    header.getUint32(8) === NbdOpt.GO;
  const length = header.getUint32(16);
  if (!isReply || length > 2 * NBD_MAX_STRING_BYTES) {
    throw new NegotiationError('the server breaks the NBD protocol');
  }
  return { type: header.getUint32(12), length };
}

function refusal(type: number, data: Uint8Array): NegotiationError {
  const said = Buffer.from(data)
    .toString('utf8')
    .replaceAll(/[^ -~]+/g, ' ')
    .trim();
  const reason = said === '' ? nbdRepName(type) : `${said} (${nbdRepName(type)})`;
  return new NegotiationError(`the server refuses: ${reason}`, type === NbdRep.ERR_SHUTDOWN);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
