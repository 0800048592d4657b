/**
 * Warnings about clients, of which anyone who can connect can cause as many as he likes: of each
 * kind, so many lines in a while, and then a count of those that were left out.
 */

import type { LogDetails, Logger } from './log.ts';
import type { LogEvent } from './log-events.ts';

const LINES_PER_WINDOW = 20;
const WINDOW_MS = 10_000;

interface Window {
  endsAtMs: number;
  lineCount: number;
  omittedCount: number;
}

export class RefusalLog {
  readonly #log: Logger;
  readonly #nowMs: () => number;
  readonly #windows = new Map<LogEvent, Window>();

  constructor(log: Logger, nowMs: () => number = () => performance.now()) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  warn(event: LogEvent, details: LogDetails, message: string): void {
    const nowMs = this.#nowMs();
    let window = this.#windows.get(event);
    if (window === undefined || nowMs >= window.endsAtMs) {
      this.#tellOmitted(event, window);
      window = { endsAtMs: nowMs + WINDOW_MS, lineCount: 0, omittedCount: 0 };
      this.#windows.set(event, window);
    }
    if (window.lineCount < LINES_PER_WINDOW) {
      window.lineCount += 1;
      this.#log.warn(event, details, message);
    } else {
      window.omittedCount += 1;
    }
  }

  /** Tells what was left out and not told yet. */
  close(): void {
    for (const [event, window] of this.#windows) this.#tellOmitted(event, window);
    this.#windows.clear();
  }

  #tellOmitted(event: LogEvent, window: Window | undefined): void {
    if (window === undefined || window.omittedCount === 0) return;
    const { omittedCount } = window;
    const message = `${omittedCount} more lines of the kind ${event} were left out`;
    this.#log.warn('lines-omitted', { of: event, count: omittedCount }, message);
  }
}
