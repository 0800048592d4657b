// Parses the data of an option. Section "Option types". The data comes from a client that nobody
// trusts: every length is compared with what is left before it is used in any arithmetic
// (CVE-2022-26495 and CVE-2022-26496 are what happens otherwise), and the data must be used up
// exactly. Parsers return undefined for anything malformed; they never throw.

import { NBD_MAX_STRING_BYTES } from './constants.ts';

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Decodes a protocol string: UTF-8, no NUL, at most 4096 bytes; undefined when it is not one. */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.length > NBD_MAX_STRING_BYTES || bytes.includes(0)) return undefined;
  try {
    return strictUtf8.decode(bytes);
  } catch {
    // The decoder throws for nothing but malformed UTF-8, which is the client's mistake.
    return undefined;
  }
}

/** Reads big-endian fields one after the other; a read beyond the end gives undefined. */
export class PayloadReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Bytes not yet read. */
  get leftBytes(): number {
    return this.#bytes.length - this.#at;
  }

  uint16(): number | undefined {
    if (this.leftBytes < 2) return undefined;
    this.#at += 2;
    return this.#view.getUint16(this.#at - 2);
  }

  uint32(): number | undefined {
    if (this.leftBytes < 4) return undefined;
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }

  /** A u32 length and a string of that many bytes. */
  string(): string | undefined {
    const lengthBytes = this.uint32();
    if (lengthBytes === undefined || lengthBytes > this.leftBytes) return undefined;
    this.#at += lengthBytes;
    return decodeString(this.#bytes.subarray(this.#at - lengthBytes, this.#at));
  }
}

/** The data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoQuery {
  readonly exportName: string;
  /** The kinds of information asked for, without repetitions. */
  readonly kinds: ReadonlySet<number>;
}

/** Parses u32 name length, name, u16 n, n x u16. */
export function parseInfoQuery(data: Uint8Array): InfoQuery | undefined {
  const reader = new PayloadReader(data);
  const exportName = reader.string();
  const kindCount = reader.uint16();
  if (exportName === undefined || kindCount === undefined) return undefined;
  if (reader.leftBytes !== kindCount * 2) return undefined;
  const kinds = new Set<number>();
  for (let kind = reader.uint16(); kind !== undefined; kind = reader.uint16()) kinds.add(kind);
  return { exportName, kinds };
}

/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface MetaContextQuery {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** Parses u32 name length, name, u32 n, n x (u32 length, query). */
export function parseMetaContextQuery(data: Uint8Array): MetaContextQuery | undefined {
  const reader = new PayloadReader(data);
  const exportName = reader.string();
  const queryCount = reader.uint32();
  if (exportName === undefined || queryCount === undefined) return undefined;
  const queries: string[] = [];
  while (queries.length < queryCount) {
    // A query is at least 4 bytes, so a large count ends here as soon as the data is used up.
    const query = reader.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return reader.leftBytes === 0 ? { exportName, queries } : undefined;
}
