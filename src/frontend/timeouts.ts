/** How long the front end waits for others. */

import type { Goal } from './interpret.ts';
import type { FrontendState } from './life-cycle.ts';

/** Bounds of the waits, in milliseconds. */
export interface FrontendTimeouts {
  /** For the directories of the vbd to appear, when it is attached at start. */
  readonly appearMs: number;
  /** For the back end to reach InitWait. */
  readonly initWaitMs: number;
  /** For the back end to reach Connected. */
  readonly connectedMs: number;
  /** For requests in flight, when the back end wants to close. */
  readonly drainMs: number;
  /** For the back end to reach Closing. */
  readonly closingMs: number;
  /** For the back end to reach Closed. */
  readonly closedMs: number;
  /** From the loss of a connection to the next; Infinity to wait for ever. */
  readonly reconnectMs: number;
}

/** Long enough for a busy host; a recovery waits for ever, as the kernel does. */
export const DEFAULT_TIMEOUTS: FrontendTimeouts = {
  appearMs: 5_000,
  initWaitMs: 20_000,
  connectedMs: 20_000,
  drainMs: 30_000,
  closingMs: 5_000,
  closedMs: 20_000,
  reconnectMs: Number.POSITIVE_INFINITY,
};

/** How long to wait in a state for what leads out of it. */
export function boundOfWaitMs(
  state: FrontendState,
  goal: Goal,
  timeouts: FrontendTimeouts,
): number {
  switch (state) {
    case 'initialising':
      return timeouts.initWaitMs;
    case 'initialised':
      return timeouts.connectedMs;
    case 'draining':
      return timeouts.drainMs;
    case 'closing':
      return timeouts.closingMs;
    case 'finishing':
      return timeouts.closedMs;
    case 'absent':
      return goal === 'close' ? timeouts.closedMs : timeouts.appearMs;
    case 'idle':
    case 'connected':
    case 'closed':
    case 'failed':
      return Number.POSITIVE_INFINITY;
    default:
      return state satisfies never;
  }
}
