/**
 * How long the daemon took to let go of a vbd that is detached: from its first look at the request
 * to its word that it is closed, by the times in its own log. What the toolstack takes on top, with
 * its processes and scripts, is the emulated machine's.
 */
import { ok } from 'node:assert/strict';

/**
 * The toolstack's own patience. On a quiet emulated machine it takes half a second, on one that
 * shares its processor with others it took five times as long.
 */
const DETACH_MAX_MS = 10_000;

/** Of the last detach that a log of level debug tells of; null when it tells of none. */
export function detachMsOf(log: string): number | null {
  const timeOf = (words: RegExp): number | undefined => {
    const lines = log.split('\n').filter((text) => words.test(text));
    const last = lines.at(-1);
    return last === undefined ? undefined : (JSON.parse(last) as { time: number }).time;
  };
  const beganMs = timeOf(/connected -> draining \(unplugging\)/);
  const endedMs = timeOf(/finishing -> (?:absent|closed)/);
  return beganMs === undefined || endedMs === undefined ? null : endedMs - beganMs;
}

/** Says it, and fails when it was too long. */
export function checkDetach(lab: { step(text: string): void }, tookMs: number | null): void {
  ok(tookMs !== null, 'the log tells of no detach');
  lab.step(`        the daemon let go within ${tookMs} ms`);
  ok(tookMs <= DETACH_MAX_MS, `it took ${tookMs} ms to let go of a vbd`);
}
