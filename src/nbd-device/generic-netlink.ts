/**
 * Messages of generic netlink: an nlmsghdr, a genlmsghdr, and attributes, which may hold attributes
 * themselves (linux/netlink.h, linux/genetlink.h). Integers are of the machine's byte order, which
 * is little-endian on all that Xen runs on. Pure: bytes in, bytes out.
 */

const HEADER_BYTES = 16;
const GENERIC_HEADER_BYTES = 4;
const ATTRIBUTE_HEADER_BYTES = 4;
/** Everything starts at a multiple of it. */
const ALIGNMENT = 4;

const NLMSG_ERROR = 2;
const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLA_F_NESTED = 0x8000;
/** Without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const NLA_TYPE_MASK = 0x3fff;

/** An attribute to send: its type, and a value or attributes. */
export type Attribute =
  | { readonly type: number; readonly u32: number }
  | { readonly type: number; readonly u64: bigint }
  | { readonly type: number; readonly text: string }
  | { readonly type: number; readonly nested: readonly Attribute[] };

/** A command for a family of generic netlink. */
export interface Command {
  readonly family: number;
  readonly command: number;
  readonly sequence: number;
  readonly attributes: readonly Attribute[];
}

/** What the kernel says. */
export type Message =
  /** How a command ended: 0, or a positive errno. */
  | { readonly kind: 'end'; readonly sequence: number; readonly errno: number }
  | {
      readonly kind: 'command';
      readonly family: number;
      readonly command: number;
      readonly attributes: ReceivedAttributes;
    };

/** Values by type; of several with one type the last. */
export type ReceivedAttributes = ReadonlyMap<number, Uint8Array>;

/** The bytes of a command that the kernel shall acknowledge. */
export function encodeCommand({ family, command, sequence, attributes }: Command): Uint8Array {
  const payload = encodeAttributes(attributes);
  const bytes = Buffer.alloc(HEADER_BYTES + GENERIC_HEADER_BYTES + payload.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt16LE(family, 4);
  bytes.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes.writeUInt8(command, HEADER_BYTES);
  bytes.writeUInt8(1, HEADER_BYTES + 1); // the version of the family
  payload.copy(bytes, HEADER_BYTES + GENERIC_HEADER_BYTES);
  return bytes;
}

function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(attributes.map(encodeAttribute));
}

function encodeAttribute(attribute: Attribute): Buffer {
  const value = encodeValue(attribute);
  const length = ATTRIBUTE_HEADER_BYTES + value.length;
  const bytes = Buffer.alloc(aligned(length));
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE('nested' in attribute ? attribute.type | NLA_F_NESTED : attribute.type, 2);
  value.copy(bytes, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

function encodeValue(attribute: Attribute): Buffer {
  if ('nested' in attribute) return encodeAttributes(attribute.nested);
  if ('text' in attribute) return Buffer.from(`${attribute.text}\0`);
  const bytes = Buffer.alloc('u32' in attribute ? 4 : 8);
  if ('u32' in attribute) bytes.writeUInt32LE(attribute.u32);
  else bytes.writeBigUInt64LE(attribute.u64);
  return bytes;
}

/** The messages in `bytes`, as far as they are of a kind that matters here. */
export function decodeMessages(bytes: Uint8Array): Message[] {
  const view = viewOf(bytes);
  const messages: Message[] = [];
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const length = view.getUint32(at, true);
    const end = at + length;
    if (length < HEADER_BYTES || end > bytes.length) break;
    const message = decodeMessage(bytes.subarray(at, end));
    if (message !== undefined) messages.push(message);
    at += aligned(length);
  }
  return messages;
}

function decodeMessage(bytes: Uint8Array): Message | undefined {
  const view = viewOf(bytes);
  const type = view.getUint16(4, true);
  const bodyAt = HEADER_BYTES + GENERIC_HEADER_BYTES;
  if (bytes.length < bodyAt) return undefined;
  if (type === NLMSG_ERROR) {
    const sequence = view.getUint32(8, true);
    return { kind: 'end', sequence, errno: -view.getInt32(HEADER_BYTES, true) };
  }
  const command = view.getUint8(HEADER_BYTES);
  return {
    kind: 'command',
    family: type,
    command,
    attributes: decodeAttributes(bytes.subarray(bodyAt)),
  };
}

/** The attributes in `bytes`: those of a message, or of one attribute. */
export function decodeAttributes(bytes: Uint8Array): ReceivedAttributes {
  const view = viewOf(bytes);
  const attributes = new Map<number, Uint8Array>();
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length; ) {
    const length = view.getUint16(at, true);
    const end = at + length;
    if (length < ATTRIBUTE_HEADER_BYTES || end > bytes.length) break;
    const type = view.getUint16(at + 2, true) & NLA_TYPE_MASK;
    attributes.set(type, bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, end));
    at += aligned(length);
  }
  return attributes;
}

/** The number of an attribute of two or four bytes; undefined for one of another length. */
export function numberOf(value: Uint8Array | undefined): number | undefined {
  if (value?.length === 2) return viewOf(value).getUint16(0, true);
  if (value?.length === 4) return viewOf(value).getUint32(0, true);
  return undefined;
}

/** The text of an attribute, without the NUL at its end. */
export function textOf(value: Uint8Array | undefined): string | undefined {
  return value === undefined
    ? undefined
    : Buffer.from(value).toString('utf8').replace(/\0.*$/s, '');
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function aligned(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}
