// The steps of which rows about transmission are made.

import { hexNumber } from '../support/hex.ts';
import type { Need, Row, Step } from './dialogue.ts';

export const EPERM: number = 1;
export const EINVAL: number = 22;
export const ENOSPC: number = 28;
export const EOVERFLOW: number = 75;
export const ENOTSUP: number = 95;

export const READ: number = 0;
export const WRITE: number = 1;
export const DISC: number = 2;
export const FLUSH: number = 3;
export const TRIM: number = 4;
export const WRITE_ZEROES: number = 6;
export const BLOCK_STATUS: number = 7;

/** The fields of a request header. */
export interface Fields {
  readonly command: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly data?: string;
}

/** The cookie of the request a row is about. */
export const COOKIE: string = 'f0e1d2c3b4a59687';

/** A compact request. */
export function request(fields: Fields, cookie: string = COOKIE): Step {
  const { command, flags = 0, offset = 0, length = 0, data = '' } = fields;
  const header = `${hexNumber(flags, 2)} ${hexNumber(command, 2)} ${cookie} ${hexNumber(offset, 8)}`;
  return { send: `25609513 ${header} ${hexNumber(length, 4)} ${data}` };
}

/** An extended request, by default with the cookie above. */
export function extended(fields: Fields): Step {
  const { command, flags = 0, offset = 0, length = 0, data = '' } = fields;
  const header = `${hexNumber(flags, 2)} ${hexNumber(command, 2)} ${COOKIE} ${hexNumber(offset, 8)}`;
  return { send: `21e41c71 ${header} ${hexNumber(length, 8)} ${data}` };
}

/** A whole reply with one of these error numbers. */
export function answer(errno: readonly number[], more: object = {}): Step {
  return { reply: COOKIE, errno, ...more };
}

/** A request behind which the connection is shown to be in step by a READ of one byte. */
export function inStep(steps: readonly Step[]): Step[] {
  return [
    ...steps,
    request({ command: READ, length: 1 }, '00000000000000aa'),
    { reply: '00000000000000aa', errno: [0], dataBytes: 1 },
  ];
}

/** A row that begins in the transmission phase. */
export function row(
  section: string,
  level: Row['level'],
  rule: string,
  steps: readonly Step[],
  needs: readonly Need[] = [],
): Row {
  return { section, level, rule, steps, needs, in: 'transmission' };
}
