/** The moments at which time alone makes the front end look again. */

import type { Clock } from './clock.ts';
import type { Goal } from './interpret.ts';
import type { FrontendState } from './life-cycle.ts';
import { retryPauseMs } from './retry-pause.ts';
import { boundOfWaitMs, type FrontendTimeouts } from './timeouts.ts';

/**
 * When Closed is said again, or said at all to a back end at Closed that does not answer our
 * Initialising. A back end looks at our state when we write it; if its own state is changed behind
 * its back in between, as a toolstack does for a removal, it waits for us.
 */
const NUDGE_MS = 2_000;

/** A connection that stood so long was a real one. */
const STABLE_MS = 1_000;
/** Connections in a row that may be lost sooner, before pauses begin. */
const FREE_FLAPS = 3;

/** Which of them have come. */
export interface DueTimes {
  readonly isTimeUp: boolean;
  readonly isRetryDue: boolean;
  readonly isNudgeDue: boolean;
  readonly isRecoveryOver: boolean;
  /** Not a moment, but a count of them. */
  readonly isFirstAttempt: boolean;
}

export class Deadlines {
  readonly #clock: Clock;
  readonly #timeouts: FrontendTimeouts;
  /** The bounded wait of the present state. */
  #stateMs = Number.POSITIVE_INFINITY;
  /** The pause before the next attempt; none at first. */
  #retryMs = Number.NEGATIVE_INFINITY;
  #nudgeMs = Number.POSITIVE_INFINITY;
  /** From the loss of a connection to the next. */
  #recoveryMs = Number.POSITIVE_INFINITY;
  /** Attempts since the last connection stood. */
  #attempts = 0;
  #connectedAtMs = Number.NEGATIVE_INFINITY;
  /** Connections in a row that were lost at once. */
  #flaps = 0;

  constructor(clock: Clock, timeouts: FrontendTimeouts) {
    this.#clock = clock;
    this.#timeouts = timeouts;
  }

  startWait(state: FrontendState, goal: Goal): void {
    this.#stateMs = this.#clock.nowMs() + boundOfWaitMs(state, goal, this.#timeouts);
  }

  /** The present wait is pointless: an attempt has failed. The next one comes after a pause. */
  endWait(): void {
    this.#attempts++;
    this.startRetryPause();
    this.#stateMs = this.#clock.nowMs();
  }

  /** A back end that always connects and always closes at once must not keep us busy. */
  startRetryPause(): void {
    const failures = this.#attempts + Math.max(0, this.#flaps - FREE_FLAPS);
    this.#retryMs = this.#clock.nowMs() + retryPauseMs(failures);
  }

  startNudgePause(): void {
    this.#nudgeMs = this.#clock.nowMs() + NUDGE_MS;
  }

  /** The connection was lost, unless it was lost already. */
  startRecovery(): void {
    const nowMs = this.#clock.nowMs();
    if (this.#connectedAtMs !== Number.NEGATIVE_INFINITY) {
      this.#flaps = nowMs - this.#connectedAtMs < STABLE_MS ? this.#flaps + 1 : 0;
      this.#connectedAtMs = Number.NEGATIVE_INFINITY;
      this.#recoveryMs = nowMs + this.#timeouts.reconnectMs;
    }
  }

  /** Counts an attempt at a connection; returns how many there were since the last one stood. */
  countAttempt(): number {
    this.#attempts++;
    return this.#attempts;
  }

  /** A connection stands. */
  endRecovery(): void {
    this.#recoveryMs = Number.POSITIVE_INFINITY;
    this.#attempts = 0;
    this.#connectedAtMs = this.#clock.nowMs();
  }

  due(): DueTimes {
    const nowMs = this.#clock.nowMs();
    return {
      isTimeUp: nowMs >= this.#stateMs,
      isRetryDue: nowMs >= this.#retryMs,
      isNudgeDue: nowMs >= this.#nudgeMs,
      isRecoveryOver: nowMs >= this.#recoveryMs,
      isFirstAttempt: this.#attempts <= 1,
    };
  }

  /** The next of those that matter. What is due already brought nothing: only a change can help. */
  nextMs(state: FrontendState, goal: Goal): number {
    const nowMs = this.#clock.nowMs();
    const all = [this.#stateMs, this.#retryMs];
    if (state === 'finishing' || state === 'initialising') {
      all.push(this.#nudgeMs);
    }
    if (goal === 'serve') {
      all.push(this.#recoveryMs);
    }
    return Math.min(...all.map((at) => (at > nowMs ? at : Number.POSITIVE_INFINITY)));
  }
}
