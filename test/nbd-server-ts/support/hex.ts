// Bytes typed as hex in tests. Blanks and line breaks separate the fields of a message, so that a
// golden row can be read beside the specification.

/** '4e42 00' -> bytes. A part in single quotes is ASCII text: "00000004 'disk'". */
export function hex(text: string): Uint8Array {
  const out: number[] = [];
  for (const part of text.match(/'[^']*'|[^\s']+/g) ?? []) {
    if (part.startsWith("'")) {
      out.push(...Buffer.from(part.slice(1, -1), 'latin1'));
      continue;
    }
    if (!/^([0-9a-f]{2})+$/.test(part)) throw new Error(`"${part}" is not hex in "${text}".`);
    out.push(...Buffer.from(part, 'hex'));
  }
  return Uint8Array.from(out);
}

/** Bytes -> hex without blanks. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** A number as big-endian hex of `byteCount` bytes. */
export function hexNumber(value: number | bigint, byteCount: number): string {
  return BigInt(value)
    .toString(16)
    .padStart(byteCount * 2, '0');
}

/** Hex of the ASCII text. */
export function hexText(text: string): string {
  return Buffer.from(text, 'latin1').toString('hex');
}

/** 'ab' repeated: `count` bytes of one value. */
export function hexFill(byte: string, count: number): string {
  return byte.repeat(count);
}
