/**
 * How long the daemon took to let go of a vbd that is detached, by the times in its own log: from
 * its first look at the request until its Closed is written. What the toolstack does before and
 * after, with its processes and scripts, is not in it.
 */
import { ok } from 'node:assert/strict';

/** What users are promised. */
const DETACH_MAX_MS = 2000;

/** Of the last detach that a log of level debug tells of; null when it tells of none. */
export function detachMsOf(log: string): number | null {
  const lines = log.split('\n');
  const began = lines.findLastIndex((line) => line.includes('connected -> draining (unplugging)'));
  const ended = lines.findIndex((line, at) => at > began && line.includes(': says Closed.'));
  if (began === -1 || ended === -1) return null;
  return timeOf(lines[ended]) - timeOf(lines[began]);
}

function timeOf(line = ''): number {
  return (JSON.parse(line) as { time: number }).time;
}

/** Says it, and fails when it was too long. */
export function checkDetach(lab: { step(text: string): void }, tookMs: number | null): void {
  ok(tookMs !== null, 'the log tells of no detach');
  lab.step(`        the daemon let go within ${tookMs} ms`);
  ok(tookMs <= DETACH_MAX_MS, `it took ${tookMs} ms to let go of a vbd`);
}
