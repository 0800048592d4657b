/**
 * The pieces bodies are made of: strings that each end in a NUL byte, and raw octets. Names, paths
 * and tokens are ASCII by the specification; they are carried as Latin-1 here, so that whatever
 * a peer sends is kept byte by byte instead of turned into replacement characters.
 */
import { XenStoreError } from './errors.ts';

/**
 * Strings as they stand in a body: each followed by a NUL byte.
 * @throws XenStoreError `EINVAL` if one holds a NUL or a character beyond Latin-1.
 */
export function encodeStrings(strings: readonly string[]): Uint8Array {
  for (const text of strings) {
    if (text.includes('\0') || /[\u0100-\uffff]/.test(text)) {
      throw new XenStoreError(
        'EINVAL',
        `${JSON.stringify(text)} holds a character that XenStore cannot carry.`,
      );
    }
  }
  return Buffer.from(strings.map((text) => `${text}\0`).join(''), 'latin1');
}

/** The strings of a body; undefined if it does not end in NUL. No bytes are no strings. */
export function decodeStrings(body: Uint8Array): string[] | undefined {
  if (body.length === 0) return [];
  if (body[body.length - 1] !== 0) return undefined;
  return bytesToLatin1(body.subarray(0, -1)).split('\0');
}

/** A body that is one string, whose NUL at the end may be missing, since servers differ. */
export function decodeOneString(body: Uint8Array): string | undefined {
  const end = body.indexOf(0);
  if (end === -1) return bytesToLatin1(body);
  return end === body.length - 1 ? bytesToLatin1(body.subarray(0, end)) : undefined;
}

/** The first string of a body and the octets after its NUL; undefined if there is no NUL. */
export function splitFirstString(
  body: Uint8Array,
): { first: string; rest: Uint8Array } | undefined {
  const end = body.indexOf(0);
  if (end === -1) return undefined;
  return { first: bytesToLatin1(body.subarray(0, end)), rest: body.subarray(end + 1) };
}

/** Two byte strings, one after the other. */
export function joinBytes(first: Uint8Array, second: Uint8Array): Uint8Array {
  return Buffer.concat([first, second]);
}

/** Bytes as characters U+0000 to U+00FF. */
export function bytesToLatin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** A value as text. Bytes that are not UTF-8 become U+FFFD. */
export function bytesToUtf8(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** A value as bytes: text becomes UTF-8, without a NUL. */
export function valueToBytes(value: string | Uint8Array): Uint8Array {
  return typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
}
