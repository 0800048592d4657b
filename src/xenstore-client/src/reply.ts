/**
 * What servers send, as typed values: docs/misc/xenstore.txt, "Xenstore protocol details".
 * {@link encodeReply} and {@link encodeWatchEvent} are the server's half, {@link parseReply} the
 * client's.
 *
 *   READ                   value, without a NUL
 *   DIRECTORY              (name NUL)*
 *   DIRECTORY_PART         generation NUL (name NUL)*, and one more NUL when the list ends here
 *   GET_PERMS              (permission NUL)+
 *   TRANSACTION_START      transaction id NUL
 *   GET_DOMAIN_PATH        path NUL
 *   IS_DOMAIN_INTRODUCED   "T" NUL or "F" NUL
 *   CONTROL                any text NUL
 *   GET_FEATURE            features NUL
 *   GET_QUOTA              value NUL, or the names of the quotas with blanks between them NUL
 *   ERROR                  error name NUL
 *   WATCH_EVENT            path NUL token NUL
 *   all others             "OK" NUL
 */
import {
  decodeOneString,
  decodeStrings,
  encodeStrings,
  joinBytes,
  splitFirstString,
} from './body.ts';
import { nameOfXsType, XENSTORE_PAYLOAD_MAX, type XsErrorName, XsType } from './constants.ts';
import { XenStoreProtocolError } from './errors.ts';
import { formatDecimal, parseDecimal } from './number.ts';
import { encodePacket, type Packet } from './packet.ts';
import { formatPermission, type Permission, parsePermission } from './permissions.ts';

/** Answer to READ: the value, as bytes. */
export interface ReadReply {
  /** The request that it answers. */
  readonly type: typeof XsType.READ;
  /** What the node holds; may be empty. */
  readonly value: Uint8Array;
}

/** Answer to DIRECTORY: the names of a node's children. */
export interface DirectoryReply {
  /** The request that it answers. */
  readonly type: typeof XsType.DIRECTORY;
  /** Names of children, without the path. */
  readonly names: readonly string[];
}

/** Answer to DIRECTORY_PART: a piece of a list that is too long for one packet. */
export interface DirectoryPartReply {
  /** The request that it answers. */
  readonly type: typeof XsType.DIRECTORY_PART;
  /** Changes whenever the node does; parts of different generations do not fit together. */
  readonly generation: string;
  /** Names of children, without the path. */
  readonly names: readonly string[];
  /** Whether the list of children ends with this part. */
  readonly isLast: boolean;
}

/** Answer to GET_PERMS. */
export interface GetPermsReply {
  /** The request that it answers. */
  readonly type: typeof XsType.GET_PERMS;
  /** The first names the owner and what is left for all others. */
  readonly permissions: readonly Permission[];
}

/** Answer to TRANSACTION_START: the id of the transaction. */
export interface TransactionStartReply {
  /** The request that it answers. */
  readonly type: typeof XsType.TRANSACTION_START;
  /** A u32, not 0. */
  readonly transactionId: number;
}

/** Answer to GET_DOMAIN_PATH. */
export interface GetDomainPathReply {
  /** The request that it answers. */
  readonly type: typeof XsType.GET_DOMAIN_PATH;
  /** Such as `/local/domain/5`. */
  readonly path: string;
}

/** Answer to IS_DOMAIN_INTRODUCED. */
export interface IsDomainIntroducedReply {
  /** The request that it answers. */
  readonly type: typeof XsType.IS_DOMAIN_INTRODUCED;
  /** Whether the domain is connected to XenStore. */
  readonly introduced: boolean;
}

/** A reply that is one piece of text. For GET_FEATURE and GET_QUOTA it is mostly a number. */
export interface TextReply {
  /** The request that it answers. */
  readonly type: typeof XsType.CONTROL | typeof XsType.GET_FEATURE | typeof XsType.GET_QUOTA;
  /** Without the NUL. */
  readonly text: string;
}

/** The answer to a request that has nothing to tell but that it was done. */
export interface OkReply {
  /** The request that it answers. */
  readonly type:
    | typeof XsType.WRITE
    | typeof XsType.MKDIR
    | typeof XsType.RM
    | typeof XsType.SET_PERMS
    | typeof XsType.WATCH
    | typeof XsType.UNWATCH
    | typeof XsType.RESET_WATCHES
    | typeof XsType.TRANSACTION_END
    | typeof XsType.INTRODUCE
    | typeof XsType.RELEASE
    | typeof XsType.RESUME
    | typeof XsType.SET_TARGET
    | typeof XsType.SET_FEATURE
    | typeof XsType.SET_QUOTA;
}

/** Any request that failed. */
export interface ErrorReply {
  /** An error answers any request. */
  readonly type: typeof XsType.ERROR;
  /** One of the names of xs_wire.h; a newer server may send others. */
  readonly name: XsErrorName | (string & {});
}

/** Every reply of the protocol; `type` tells them apart. */
export type XsReply =
  | ReadReply
  | DirectoryReply
  | DirectoryPartReply
  | GetPermsReply
  | TransactionStartReply
  | GetDomainPathReply
  | IsDomainIntroducedReply
  | TextReply
  | OkReply
  | ErrorReply;

/** A watch fired. Fires may be spurious, and several changes may be one: read again, always. */
export interface WatchEvent {
  /** What changed: the watched path or one below it; relative if the watch was. */
  readonly path: string;
  /** The token given with WATCH. */
  readonly token: string;
}

/**
 * The packet of a reply. `reqId` and `txId` are those of the request.
 * @throws XenStoreError `E2BIG` if it does not fit into one packet; a server then answers with that
 *   error, which makes clients ask for a directory in parts.
 */
export function encodeReply(reply: XsReply, reqId: number, txId = 0): Uint8Array {
  return encodePacket({ type: reply.type, reqId, txId, payload: encodeBody(reply) });
}

/**
 * The packet of a watch event; both ids are 0, as the specification has it.
 * @throws XenStoreError `E2BIG` if it does not fit into one packet.
 */
export function encodeWatchEvent(event: WatchEvent): Uint8Array {
  const payload = encodeStrings([event.path, event.token]);
  return encodePacket({ type: XsType.WATCH_EVENT, reqId: 0, txId: 0, payload });
}

function encodeBody(reply: XsReply): Uint8Array {
  switch (reply.type) {
    case XsType.READ:
      return reply.value;
    case XsType.DIRECTORY:
      return encodeStrings(reply.names);
    case XsType.DIRECTORY_PART: {
      const body = encodeStrings([reply.generation, ...reply.names]);
      return reply.isLast ? joinBytes(body, Uint8Array.of(0)) : body;
    }
    case XsType.GET_PERMS:
      return encodeStrings(reply.permissions.map(formatPermission));
    case XsType.TRANSACTION_START:
      return encodeStrings([formatDecimal(reply.transactionId)]);
    case XsType.GET_DOMAIN_PATH:
      return encodeStrings([reply.path]);
    case XsType.IS_DOMAIN_INTRODUCED:
      return encodeStrings([reply.introduced ? 'T' : 'F']);
    case XsType.CONTROL:
    case XsType.GET_FEATURE:
    case XsType.GET_QUOTA:
      return encodeStrings([reply.text]);
    case XsType.ERROR:
      return encodeStrings([reply.name]);
    case XsType.WRITE:
    case XsType.MKDIR:
    case XsType.RM:
    case XsType.SET_PERMS:
    case XsType.WATCH:
    case XsType.UNWATCH:
    case XsType.RESET_WATCHES:
    case XsType.TRANSACTION_END:
    case XsType.INTRODUCE:
    case XsType.RELEASE:
    case XsType.RESUME:
    case XsType.SET_TARGET:
    case XsType.SET_FEATURE:
    case XsType.SET_QUOTA:
      return encodeStrings(['OK']);
  }
}

/**
 * The part of a list of children that begins at `offsetBytes` of `name NUL name NUL ...` and fits
 * into one packet, as xenstored cuts it: whole names only. An offset at or beyond the end gives
 * an empty last part; one in the middle of a name gives the rest of that name first.
 */
export function sliceDirectory(
  names: readonly string[],
  generation: string,
  offsetBytes: number,
): DirectoryPartReply {
  // One byte stays free for the NUL that marks the end.
  const roomBytes = XENSTORE_PAYLOAD_MAX - (generation.length + 1) - 1;
  const part: string[] = [];
  let positionBytes = 0;
  let usedBytes = 0;
  let isLast = true;
  for (const name of names) {
    const skippedBytes = Math.max(0, offsetBytes - positionBytes);
    positionBytes += name.length + 1;
    if (skippedBytes > name.length) continue;
    const rest = name.slice(skippedBytes);
    if (usedBytes + rest.length + 1 > roomBytes) {
      isLast = false;
      break;
    }
    part.push(rest);
    usedBytes += rest.length + 1;
  }
  return { type: XsType.DIRECTORY_PART, generation, names: part, isLast };
}

/**
 * The reply in a packet that is not a watch event.
 * @throws XenStoreProtocolError if the body is not what its type promises, or the type is that of
 *   no reply.
 */
export function parseReply(packet: Packet): XsReply {
  const reply = parseBody(packet.type, packet.payload);
  if (reply === undefined) {
    throw new XenStoreProtocolError(
      `The XenStore server sent a ${nameOfXsType(packet.type)} message that cannot be read.`,
    );
  }
  return reply;
}

/**
 * The event in a packet of type WATCH_EVENT.
 * @throws XenStoreProtocolError if it is not two strings.
 */
export function parseWatchEvent(packet: Packet): WatchEvent {
  const [path, token] = decodeStrings(packet.payload) ?? [];
  // Servers may append strings: xs_watch_type only names the first two.
  if (packet.type !== XsType.WATCH_EVENT || path === undefined || token === undefined) {
    throw new XenStoreProtocolError('The XenStore server sent a watch event that cannot be read.');
  }
  return { path, token };
}

function parseBody(type: number, body: Uint8Array): XsReply | undefined {
  switch (type) {
    case XsType.READ:
      return { type, value: body };
    case XsType.DIRECTORY: {
      const names = decodeStrings(body);
      return names === undefined || names.includes('') ? undefined : { type, names };
    }
    case XsType.DIRECTORY_PART:
      return parseDirectoryPart(body);
    case XsType.GET_PERMS:
      return parsePerms(body);
    case XsType.TRANSACTION_START: {
      const transactionId = parseDecimal(decodeOneString(body) ?? '');
      const isId = transactionId !== undefined && transactionId > 0 && transactionId <= 0xffffffff;
      return isId ? { type, transactionId } : undefined;
    }
    case XsType.GET_DOMAIN_PATH: {
      const path = decodeOneString(body);
      return path === undefined ? undefined : { type, path };
    }
    case XsType.IS_DOMAIN_INTRODUCED: {
      const flag = decodeOneString(body);
      return flag === 'T' || flag === 'F' ? { type, introduced: flag === 'T' } : undefined;
    }
    case XsType.CONTROL:
    case XsType.GET_FEATURE:
    case XsType.GET_QUOTA: {
      const text = decodeOneString(body);
      return text === undefined ? undefined : { type, text };
    }
    case XsType.ERROR: {
      const name = decodeOneString(body);
      return name === undefined || name === '' ? undefined : { type, name };
    }
    case XsType.WRITE:
    case XsType.MKDIR:
    case XsType.RM:
    case XsType.SET_PERMS:
    case XsType.WATCH:
    case XsType.UNWATCH:
    case XsType.RESET_WATCHES:
    case XsType.TRANSACTION_END:
    case XsType.INTRODUCE:
    case XsType.RELEASE:
    case XsType.RESUME:
    case XsType.SET_TARGET:
    case XsType.SET_FEATURE:
    case XsType.SET_QUOTA:
      return decodeOneString(body) === 'OK' ? { type } : undefined;
    default:
      return undefined;
  }
}

function parseDirectoryPart(body: Uint8Array): DirectoryPartReply | undefined {
  const parts = splitFirstString(body);
  if (parts === undefined) return undefined;
  const strings = decodeStrings(parts.rest);
  if (strings === undefined) return undefined;
  // No child has an empty name, so an empty string is the mark of the end.
  const isLast = strings.at(-1) === '';
  const names = isLast ? strings.slice(0, -1) : strings;
  // A part without a name that is not the end would have the reader ask for the same for ever.
  if (names.includes('') || (names.length === 0 && !isLast)) return undefined;
  return { type: XsType.DIRECTORY_PART, generation: parts.first, names, isLast };
}

function parsePerms(body: Uint8Array): GetPermsReply | undefined {
  const permissions: Permission[] = [];
  for (const text of decodeStrings(body) ?? []) {
    const permission = parsePermission(text);
    if (permission === undefined) return undefined;
    permissions.push(permission);
  }
  return permissions.length === 0 ? undefined : { type: XsType.GET_PERMS, permissions };
}
