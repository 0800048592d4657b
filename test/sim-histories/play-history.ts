/** Plays one history and tells how it ended. */

import assert from 'node:assert/strict';
import { History, type HistoryOptions, HistoryOver, type HistoryResult } from './history.ts';

let isPlaying = false;

/** Plays the history of a seed. Never rejects; what is wrong is in the result. */
export async function playHistory(options: HistoryOptions): Promise<HistoryResult> {
  assert(!isPlaying, 'Histories use the same memory, one after the other.');
  isPlaying = true;
  const history = new History(options);
  const onRejection = (reason: unknown): void =>
    history.report(`unhandled rejection: ${text(reason)}`);
  process.on('unhandledRejection', onRejection);
  try {
    await history.play();
  } catch (error) {
    if (!(error instanceof HistoryOver)) history.report(`it threw: ${text(error)}`);
  } finally {
    history.free();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', onRejection);
    isPlaying = false;
  }
  return history.result();
}

function text(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
