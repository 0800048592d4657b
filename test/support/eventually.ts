// Waiting for something that sends no event, such as another process's /proc entry: look again and
// again, with a bound. Prefer an event wherever there is one.
import { setTimeout as pause } from 'node:timers/promises';

/**
 * Calls `probe` every 10 ms until it returns a value.
 *
 * @throws Error `what` and the bound, when `timeoutMs` have passed; an error of the last probe is
 *   its cause.
 */
export async function eventually<T>(
  what: string,
  timeoutMs: number,
  probe: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  let cause: unknown;
  do {
    try {
      const value = await probe();
      if (value !== undefined) return value;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    await pause(10);
  } while (performance.now() < deadlineMs);
  throw new Error(`${what}: not within ${timeoutMs} ms`, { cause });
}
