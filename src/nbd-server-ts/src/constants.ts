// The numbers of the NBD protocol, spelled as the specification spells them (NBD_CMD_READ is
// NbdCmd.READ), each group with its name table for logs. Source: doc/proto.md of
// NetworkBlockDevice/nbd, sections "Values" and "Option types". All integers on the wire are
// big-endian. 64-bit magics stand here as two u32 halves, so that no BigInt is needed to read them.

/** First magic of the server, "NBDMAGIC", high half. */
export const NBDMAGIC_HIGH = 0x4e42444d;
/** First magic of the server, "NBDMAGIC", low half. */
export const NBDMAGIC_LOW = 0x41474943;
/** "IHAVEOPT", the second magic of the server and the magic of each option, high half. */
export const IHAVEOPT_HIGH = 0x49484156;
/** "IHAVEOPT", low half. */
export const IHAVEOPT_LOW = 0x454f5054;
/** Magic of an option reply, high half. */
export const OPTION_REPLY_MAGIC_HIGH = 0x0003e889;
/** Magic of an option reply, low half. */
export const OPTION_REPLY_MAGIC_LOW = 0x045565a9;
/** Magic of a request with a 32-bit length. */
export const NBD_REQUEST_MAGIC = 0x25609513;
/** Magic of a simple reply. */
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
/** Magic of a structured reply chunk. */
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
/** Magic of a request with a 64-bit length (extension EXTENDED_HEADERS). */
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
/** Magic of a reply chunk with a 64-bit length (extension EXTENDED_HEADERS). */
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

/** Bytes of the server's greeting: two magics and the handshake flags. */
export const GREETING_BYTES = 18;
/** Bytes of an option header: magic, option, length. */
export const OPTION_HEADER_BYTES = 16;
/** Bytes of an option reply header: magic, option, type, length. */
export const OPTION_REPLY_HEADER_BYTES = 20;
/** Bytes of a request header, without the payload of a WRITE. */
export const REQUEST_BYTES = 28;
/** Bytes of an extended request header, without payload. */
export const EXTENDED_REQUEST_BYTES = 32;
/** Bytes of a simple reply header, without the data of a READ. */
export const SIMPLE_REPLY_BYTES = 16;
/** Bytes of a structured reply chunk header. */
export const CHUNK_HEADER_BYTES = 20;
/** Bytes of an extended reply chunk header. */
export const EXTENDED_CHUNK_HEADER_BYTES = 32;
/** The longest string a peer may send or be sent: export names, error texts, descriptions. */
export const NBD_MAX_STRING_BYTES = 4096;
/** The port registered for NBD. */
export const NBD_PORT = 10809;

/** Handshake flags of the server (u16). */
export const NbdHandshakeFlag = {
  /** Options that are not known are answered, not hung up on. */
  FIXED_NEWSTYLE: 0x1,
  /** The server can leave out the 124 zeroes after EXPORT_NAME. */
  NO_ZEROES: 0x2,
} as const;
/** One of the handshake flags of the server. */
export type NbdHandshakeFlag = (typeof NbdHandshakeFlag)[keyof typeof NbdHandshakeFlag];

/** Handshake flags of the client (u32). */
export const NbdClientFlag = {
  /** The client knows the fixed newstyle handshake too. */
  C_FIXED_NEWSTYLE: 0x1,
  /** The client does without the zeroes. */
  C_NO_ZEROES: 0x2,
} as const;
/** One of the handshake flags of the client. */
export type NbdClientFlag = (typeof NbdClientFlag)[keyof typeof NbdClientFlag];

/** Options a client may send during the handshake. */
export const NbdOpt = {
  /** Choose an export and enter transmission; cannot be refused but by hanging up. */
  EXPORT_NAME: 1,
  /** End the handshake in good order. */
  ABORT: 2,
  /** Name the exports. */
  LIST: 3,
  /** Was never specified; always unsupported. */
  PEEK_EXPORT: 4,
  /** Go on inside TLS. */
  STARTTLS: 5,
  /** Tell about an export without choosing it. */
  INFO: 6,
  /** Choose an export, be told about it, and enter transmission. */
  GO: 7,
  /** Answer READ with chunks. */
  STRUCTURED_REPLY: 8,
  /** Name the metadata contexts of an export that match some queries. */
  LIST_META_CONTEXT: 9,
  /** Choose metadata contexts for BLOCK_STATUS. */
  SET_META_CONTEXT: 10,
  /** Use headers with 64-bit lengths. */
  EXTENDED_HEADERS: 11,
} as const;
/** One of the options. */
export type NbdOpt = (typeof NbdOpt)[keyof typeof NbdOpt];

/** Types of option replies; errors have bit 31 set. */
export const NbdRep = {
  /** Done, and nothing more follows. */
  ACK: 1,
  /** One export of LIST: its name and a description. */
  SERVER: 2,
  /** One piece of information about an export, of a kind of NbdInfo. */
  INFO: 3,
  /** One metadata context: its id and its name. */
  META_CONTEXT: 4,
  /** The server does not know this option. */
  ERR_UNSUP: 0x80000001,
  /** The server knows it, and does not want it. */
  ERR_POLICY: 0x80000002,
  /** The option is malformed, or makes no sense now. */
  ERR_INVALID: 0x80000003,
  /** It cannot be done on this platform. */
  ERR_PLATFORM: 0x80000004,
  /** TLS has to be started first. */
  ERR_TLS_REQD: 0x80000005,
  /** There is no such export. */
  ERR_UNKNOWN: 0x80000006,
  /** The server is about to end. */
  ERR_SHUTDOWN: 0x80000007,
  /** The client has to ask for the block sizes first. */
  ERR_BLOCK_SIZE_REQD: 0x80000008,
  /** The request or its answer is too large. */
  ERR_TOO_BIG: 0x80000009,
  /** Extended headers have to be agreed on first. */
  ERR_EXT_HEADER_REQD: 0x8000000a,
} as const;
/** One of the option reply types. */
export type NbdRep = (typeof NbdRep)[keyof typeof NbdRep];

/** Kinds of information in an INFO reply. */
export const NbdInfo = {
  /** Size and transmission flags. */
  EXPORT: 0,
  /** The canonical name. */
  NAME: 1,
  /** A description for people. */
  DESCRIPTION: 2,
  /** The smallest, the best and the largest request. */
  BLOCK_SIZE: 3,
} as const;
/** One of the kinds of information. */
export type NbdInfo = (typeof NbdInfo)[keyof typeof NbdInfo];

/** Transmission flags of an export (u16). */
export const NbdFlag = {
  /** Always set. */
  HAS_FLAGS: 0x1,
  /** Nothing can be written. */
  READ_ONLY: 0x2,
  /** FLUSH is served. */
  SEND_FLUSH: 0x4,
  /** The FUA flag is honoured. */
  SEND_FUA: 0x8,
  /** The disk spins. */
  ROTATIONAL: 0x10,
  /** TRIM is served. */
  SEND_TRIM: 0x20,
  /** WRITE_ZEROES is served. */
  SEND_WRITE_ZEROES: 0x40,
  /** The DF flag is honoured. */
  SEND_DF: 0x80,
  /** A flush on one connection covers what was acknowledged on all of them. */
  CAN_MULTI_CONN: 0x100,
  /** RESIZE is served; an extension that nobody has finished. */
  SEND_RESIZE: 0x200,
  /** CACHE is served. */
  SEND_CACHE: 0x400,
  /** The FAST_ZERO flag is honoured. */
  SEND_FAST_ZERO: 0x800,
  /** BLOCK_STATUS may name, in a payload, the contexts it is for. */
  BLOCK_STATUS_PAYLOAD: 0x1000,
} as const;
/** One of the transmission flags. */
export type NbdFlag = (typeof NbdFlag)[keyof typeof NbdFlag];

/** Request types. */
export const NbdCmd = {
  /** Read a range. */
  READ: 0,
  /** Write the payload to a range. */
  WRITE: 1,
  /** The client leaves; there is no answer. */
  DISC: 2,
  /** Make stable what was acknowledged before. */
  FLUSH: 3,
  /** A range is no longer needed. */
  TRIM: 4,
  /** A range will be read soon. */
  CACHE: 5,
  /** Zero a range. */
  WRITE_ZEROES: 6,
  /** Tell the extents of a range in the chosen metadata contexts. */
  BLOCK_STATUS: 7,
  /** Change the size; an extension that nobody has finished. */
  RESIZE: 8,
} as const;
/** One of the request types. */
export type NbdCmd = (typeof NbdCmd)[keyof typeof NbdCmd];

/** Command flags of a request (u16). */
export const NbdCmdFlag = {
  /** Answer when the data is on stable storage. */
  FUA: 0x1,
  /** With WRITE_ZEROES: keep the range allocated. */
  NO_HOLE: 0x2,
  /** With READ: answer in one piece, or with EOVERFLOW. */
  DF: 0x4,
  /** With BLOCK_STATUS: one extent of each context is enough. */
  REQ_ONE: 0x8,
  /** With WRITE_ZEROES: only if it is faster than writing, else ENOTSUP. */
  FAST_ZERO: 0x10,
  /** With extended headers: the length is that of a payload which follows. */
  PAYLOAD_LEN: 0x20,
} as const;
/** One of the command flags. */
export type NbdCmdFlag = (typeof NbdCmdFlag)[keyof typeof NbdCmdFlag];

/** Flags of a reply chunk (u16). */
export const NbdReplyFlag = {
  /** The last chunk of this reply. */
  DONE: 0x1,
} as const;
/** One of the flags of a reply chunk. */
export type NbdReplyFlag = (typeof NbdReplyFlag)[keyof typeof NbdReplyFlag];

/** Types of reply chunks; errors have bit 15 set. */
export const NbdReplyType = {
  /** Nothing but the header: success. */
  NONE: 0,
  /** An offset (u64) and the data from there on. */
  OFFSET_DATA: 1,
  /** An offset (u64) and a length (u32) that read as zeroes. */
  OFFSET_HOLE: 2,
  /** The id of a context (u32) and extents of two u32: length, flags. */
  BLOCK_STATUS: 5,
  /** The id of a context, a count (both u32), and extents of two u64. */
  BLOCK_STATUS_EXT: 6,
  /** An errno (u32), and a text with its length (u16). */
  ERROR: 0x8001,
  /** As ERROR, and the offset (u64) where it happened. */
  ERROR_OFFSET: 0x8002,
} as const;
/** One of the chunk types. */
export type NbdReplyType = (typeof NbdReplyType)[keyof typeof NbdReplyType];

/** Error numbers that may stand in a reply; any other number must not be sent. */
export const NbdErrno = {
  /** Success. */
  OK: 0,
  /** The export may not be written, or not in this way. */
  EPERM: 1,
  /** The device failed. */
  EIO: 5,
  /** Out of memory. */
  ENOMEM: 12,
  /** The request makes no sense, or reads past the end. */
  EINVAL: 22,
  /** No space left, or the request writes past the end. */
  ENOSPC: 28,
  /** The answer does not fit into one piece, as DF wanted it. */
  EOVERFLOW: 75,
  /** Not supported, or not fast, as FAST_ZERO wanted it. */
  ENOTSUP: 95,
  /** The server is about to end. */
  ESHUTDOWN: 108,
} as const;
/** One of the error numbers, or 0 for success. */
export type NbdErrno = (typeof NbdErrno)[keyof typeof NbdErrno];

/** Bits of a `base:allocation` extent. */
export const NbdState = {
  /** Not allocated. */
  HOLE: 0x1,
  /** Reads as zeroes. */
  ZERO: 0x2,
} as const;
/** One of the bits of a `base:allocation` extent. */
export type NbdState = (typeof NbdState)[keyof typeof NbdState];

function invert(values: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(values).map(([name, value]) => [value, name]));
}

const optNames = invert(NbdOpt);
const repNames = invert(NbdRep);
const infoNames = invert(NbdInfo);
const cmdNames = invert(NbdCmd);
const errnoNames = invert(NbdErrno);
const replyTypeNames = invert(NbdReplyType);

function nameOf(names: ReadonlyMap<number, string>, prefix: string, value: number): string {
  const name = names.get(value);
  return name === undefined ? `${prefix}?(${value})` : `${prefix}${name}`;
}

function flagNamesOf(flags: Readonly<Record<string, number>>, value: number): string {
  const names: string[] = [];
  let unknownBits = value;
  for (const [name, bit] of Object.entries(flags)) {
    if ((value & bit) !== 0) names.push(name);
    unknownBits &= ~bit;
  }
  if (unknownBits !== 0) names.push(`?(0x${(unknownBits >>> 0).toString(16)})`);
  return names.length === 0 ? 'none' : names.join('|');
}

/** The name of an option, for logs: `NBD_OPT_GO`, or `NBD_OPT_?(77)`. */
export function nbdOptName(option: number): string {
  return nameOf(optNames, 'NBD_OPT_', option);
}

/** The name of an option reply type, for logs. */
export function nbdRepName(type: number): string {
  return nameOf(repNames, 'NBD_REP_', type);
}

/** The name of a kind of information, for logs. */
export function nbdInfoName(kind: number): string {
  return nameOf(infoNames, 'NBD_INFO_', kind);
}

/** The name of a request type, for logs. */
export function nbdCmdName(command: number): string {
  return nameOf(cmdNames, 'NBD_CMD_', command);
}

/** The name of an error number, for logs: `EIO`, `OK`, or `?(7)`. */
export function nbdErrnoName(errno: number): string {
  return nameOf(errnoNames, '', errno);
}

/** The name of a chunk type, for logs. */
export function nbdReplyTypeName(type: number): string {
  return nameOf(replyTypeNames, 'NBD_REPLY_TYPE_', type);
}

/** The names of the command flags in `flags`, for logs: `FUA|NO_HOLE`, or `none`. */
export function nbdCmdFlagNames(flags: number): string {
  return flagNamesOf(NbdCmdFlag, flags);
}

/** The names of the transmission flags in `flags`, for logs. */
export function nbdFlagNames(flags: number): string {
  return flagNamesOf(NbdFlag, flags);
}
