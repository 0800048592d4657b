/** Pauses between attempts at a connection: none before the first, then doubling to a bound. */

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** The pause before attempt `attempt`, from 0. */
export function retryPauseMs(attempt: number): number {
  return attempt === 0 ? 0 : Math.min(FIRST_PAUSE_MS * 2 ** (attempt - 1), LONGEST_PAUSE_MS);
}
