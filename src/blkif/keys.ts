/**
 * XenStore values of the other end as numbers. They come from another domain and are not trusted:
 * each is parsed strictly, bounded, and refused with a sentence that names the key.
 */

/** Keys and values as read; a key that does not exist is not in the map. */
export type KeyValues = ReadonlyMap<string, string>;

/** A key whose value cannot be used. The message is one sentence for people. */
export class KeyError extends Error {
  override readonly name = 'KeyError';
  readonly key: string;
  /** What was read, or undefined for a missing key. */
  readonly value: string | undefined;

  constructor(key: string, value: string | undefined, reason: string) {
    const shown = value === undefined ? 'is missing' : `is "${printable(value)}"`;
    super(`The key ${key} ${shown}: ${reason}.`);
    this.key = key;
    this.value = value;
  }
}

/** A short, one-line form of a value that another domain chose. */
function printable(value: string): string {
  const short = value.length > 40 ? `${value.slice(0, 40)}...` : value;
  return short.replaceAll(/[^\x20-\x7e]/g, '?');
}

export const MAX_U32: number = 2 ** 32 - 1;

/**
 * A decimal number in 0..`maximum`, or `fallback` when the key is missing.
 *
 * @throws KeyError
 */
export function parseNumberKey(
  keys: KeyValues,
  key: string,
  maximum: number,
  fallback?: number,
): number {
  const value = keys.get(key);
  if (value === undefined) {
    if (fallback === undefined) {
      throw new KeyError(key, value, 'it is required');
    }
    return fallback;
  }
  // Sixteen digits hold 2^53; a longer text is absurd and is not even converted.
  if (!/^[0-9]{1,16}$/.test(value)) {
    throw new KeyError(key, value, 'a decimal number was expected');
  }
  const number = Number(value);
  if (number > maximum) {
    throw new KeyError(key, value, `it must not be above ${maximum}`);
  }
  return number;
}

/** Any u32 but 0 is yes, as in Linux; a missing key is no. @throws KeyError */
export function parseFlagKey(keys: KeyValues, key: string): boolean {
  return parseNumberKey(keys, key, MAX_U32, 0) !== 0;
}

/** Whether `value` is 1, 2, 4 and so on. */
export function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
