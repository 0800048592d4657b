/** Time as the front end sees it, so that tests and simulations can bring their own. */

export interface Clock {
  /** Milliseconds from some fixed moment; never runs backwards. */
  nowMs(): number;
  /** Calls `callback` once after `delayMs`, unless the returned function is called before. */
  startTimer(delayMs: number, callback: () => void): () => void;
}

/**
 * The clock of the machine. Its timers keep the process alive: a bounded wait must come to its end,
 * even when nothing else is left to wait for. While all is well there are none.
 */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  startTimer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
