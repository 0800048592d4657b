/**
 * u64 fields as Numbers, in two little-endian halves. Exact up to 2^53-1; a field that holds more
 * cannot be a sector of any disk we serve nor an id we gave, and is read as {@link INVALID_U64}.
 */

const TWO_POW_32 = 0x1_0000_0000;
/** The high half of 2^53: from here on a Number is no longer exact. */
const FIRST_INEXACT_HIGH = 0x20_0000;

/** What {@link readU64} gives for a value of 2^53 or more. Never a valid value. */
export const INVALID_U64 = -1;

/** Writes an integer in 0..2^53-1. */
export function writeU64(view: DataView<ArrayBufferLike>, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, (value / TWO_POW_32) >>> 0, true);
}

/** Reads an integer in 0..2^53-1, or {@link INVALID_U64}. Each half is read once. */
export function readU64(view: DataView<ArrayBufferLike>, at: number): number {
  const high = view.getUint32(at + 4, true);
  const low = view.getUint32(at, true);
  return high < FIRST_INEXACT_HIGH ? high * TWO_POW_32 + low : INVALID_U64;
}
