/** The values of options: each parser takes the text of one, and says what it should have been. */

import { parseSize, UsageError } from '../daemon/index.ts';

const EXPORT_NAME_BYTES_MAX = 4096;

/** For options that repeat: gathers what `parse` makes of each. */
export function collect<T>(parse: (text: string) => T): (text: string, before: T[]) => T[] {
  return (text, before) => [...before, parse(text)];
}

/** A whole number from `least` to `most`. */
export function wholeNumber(option: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) {
      throw new UsageError(`${option} takes a whole number from ${least} to ${most}`);
    }
    return value;
  };
}

/** Seconds, with or without a fraction, as milliseconds. */
export function seconds(option: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}(\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) {
      throw new UsageError(`${option} takes seconds from ${least} to ${most}`);
    }
    return Math.round(value * 1000);
  };
}

/** A size with a binary unit, such as 64M, as bytes. */
export function size(option: string, least: string, most: string): (text: string) => number {
  return (text) => {
    const value = parseSize(text) ?? Number.NaN;
    if (!(value >= (parseSize(least) ?? 0) && value <= (parseSize(most) ?? 0))) {
      throw new UsageError(`${option} takes a size from ${least} to ${most}`);
    }
    return value;
  };
}

export function exportName(text: string): string {
  const lengthBytes = Buffer.byteLength(text);
  if (lengthBytes > EXPORT_NAME_BYTES_MAX || text.includes('\0')) {
    throw new UsageError(`an export name has at most ${EXPORT_NAME_BYTES_MAX} bytes and no NUL`);
  }
  return text;
}
