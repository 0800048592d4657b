/** Whether the daemon can serve: every lane moves when woken, and every vbd has its backend. */

import { Counter } from '../dataplane/index.ts';
import type { MonitoredLane, MonitorSource } from './source.ts';

/** How long a lane may take for one turn. */
const TURN_MS = 1_000;
const LOOK_MS = 10;

/** The answer of /healthz. */
export interface Health {
  readonly status: 'ok' | 'starting' | 'stopping' | 'waiting' | 'stuck';
  /** For `waiting` and `stuck`: which vbds. */
  readonly vbds: readonly string[];
}

/** Asks every lane for a sign of life. */
export async function examineHealth(
  source: MonitorSource,
  turnMs: number = TURN_MS,
): Promise<Health> {
  const state = source.state();
  if (state !== 'serving') return { status: state, vbds: [] };
  const vbds = source.vbds();
  const moves = await Promise.all(
    vbds.map(async ({ name, lanes }) => {
      const signs = await Promise.all(lanes.map((lane) => moved(lane, turnMs)));
      return { name, isAlive: signs.every((sign) => sign) };
    }),
  );
  const stuck = moves.filter(({ isAlive }) => !isAlive).map(({ name }) => name);
  if (stuck.length > 0) return { status: 'stuck', vbds: stuck };
  const waiting = vbds.filter(({ isWaiting }) => isWaiting).map(({ name }) => name);
  return { status: waiting.length > 0 ? 'waiting' : 'ok', vbds: waiting };
}

async function moved(lane: MonitoredLane, turnMs: number): Promise<boolean> {
  const before = lane.counters.get(Counter.TURNS);
  lane.wake();
  for (let waitedMs = 0; waitedMs < turnMs; waitedMs += LOOK_MS) {
    if (lane.counters.get(Counter.TURNS) !== before) return true;
    await new Promise((resolve) => {
      setTimeout(resolve, LOOK_MS);
    });
  }
  return lane.counters.get(Counter.TURNS) !== before;
}
