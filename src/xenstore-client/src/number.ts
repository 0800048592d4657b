/**
 * Numbers in bodies: plain decimal digits, no sign, no spaces. Parsing is strict, since what cannot
 * be read exactly must not be guessed.
 */
import { DOMID_MAX } from './constants.ts';
import { XenStoreError } from './errors.ts';

/**
 * A domain id as decimal digits.
 * @throws XenStoreError `EINVAL` if it is not an integer from 0 to 65535.
 */
export function formatDomid(domid: number): string {
  if (!Number.isInteger(domid) || domid < 0 || domid > DOMID_MAX) {
    throw new XenStoreError('EINVAL', `${domid} is not a domain id: they go from 0 to 65535.`);
  }
  return String(domid);
}

/** Reads a decimal domain id; undefined if the text is anything else. */
export function parseDomid(text: string): number | undefined {
  const domid = parseDecimal(text);
  return domid === undefined || domid > DOMID_MAX ? undefined : domid;
}

/** Reads plain decimal digits, at most 15 of them; undefined if the text is anything else. */
export function parseDecimal(text: string): number | undefined {
  return /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

/**
 * A count, offset or id as decimal digits.
 * @throws XenStoreError `EINVAL` if it is not an integer from 0 to 2^53 - 1.
 */
export function formatDecimal(value: number): string {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new XenStoreError('EINVAL', `${value} is not a number that XenStore can carry.`);
  }
  return String(value);
}
