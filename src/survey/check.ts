/** The checks of `doctor`: what one says, and how all of them are shown. */

import { printable } from './table.ts';

/** What one check found. */
export interface Check {
  /** Stable, for programs: e.g. `gntalloc-limit`. */
  readonly id: string;
  /** `warning`: it works, and could be better. `skipped`: it does not apply, or cannot be seen. */
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  /** One sentence for people. */
  readonly message: string;
  /** The command that mends it. */
  readonly mend?: string;
}

/** A check that found nothing wrong. */
export function ok(id: string, message: string): Check {
  return { id, status: 'ok', message };
}

/** A check that does not apply, or cannot be done. */
export function skipped(id: string, message: string): Check {
  return { id, status: 'skipped', message };
}

/** Something that works and could be better, and how. */
export function warning(id: string, message: string, mend: string): Check {
  return { id, status: 'warning', message, mend };
}

/** Something that does not work, and the command that mends it. */
export function failed(id: string, message: string, mend: string): Check {
  return { id, status: 'failed', message, mend };
}

const MARKS = { ok: 'ok  ', warning: 'note', failed: 'FAIL', skipped: '-   ' } as const;

/** A line for each check, and one more for what mends it. */
export function formatChecks(checks: readonly Check[]): string {
  return checks
    .map(({ status, message, mend }) => {
      const line = `${MARKS[status]}  ${printable(message)}\n`;
      return mend === undefined ? line : `${line}      mend: ${printable(mend)}\n`;
    })
    .join('');
}
