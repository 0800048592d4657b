/**
 * What the front end sleeps on: watches, timers and requests of the owner all say "look again".
 *
 * A back end could fire watches without end. Looking costs several requests to XenStore, so after
 * many fruitless looks within a second the rest of the second is slept through.
 */

import type { Clock } from './clock.ts';

const WINDOW_MS = 1_000;
/** More than any honest handshake needs within a second. */
const LOOKS_PER_WINDOW = 200;

export class WakeUp {
  readonly #clock: Clock;
  #isPoked = false;
  #wake: (() => void) | undefined;
  #windowEndMs = 0;
  #looks = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Something may have changed. */
  poke(): void {
    this.#isPoked = true;
    this.#wake?.();
  }

  /** To be called before each look: pokes from here on mean another look. */
  beginLook(): void {
    this.#isPoked = false;
  }

  /** After a fruitless look: sleeps until the next poke, or until `deadlineMs`. */
  async sleep(deadlineMs: number): Promise<void> {
    const nowMs = this.#clock.nowMs();
    if (nowMs >= this.#windowEndMs) {
      this.#windowEndMs = nowMs + WINDOW_MS;
      this.#looks = 0;
    }
    this.#looks++;
    if (this.#looks > LOOKS_PER_WINDOW) {
      await this.#rest(Math.min(deadlineMs, this.#windowEndMs), false);
    } else if (!this.#isPoked) {
      await this.#rest(deadlineMs, true);
    }
  }

  #rest(untilMs: number, isPokeable: boolean): Promise<void> {
    const delayMs = untilMs - this.#clock.nowMs();
    if (delayMs <= 0) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      let cancel = (): void => undefined;
      const done = (): void => {
        cancel();
        this.#wake = undefined;
        resolve();
      };
      if (Number.isFinite(delayMs)) {
        cancel = this.#clock.startTimer(delayMs, done);
      }
      if (isPokeable) {
        this.#wake = done;
      }
    });
  }
}
