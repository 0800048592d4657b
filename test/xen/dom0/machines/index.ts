// The machines that can be up at the same time, and which scenarios run on each, in their order.
import type { Scenario } from '../scenario.ts';

export interface Machine {
  readonly scenarios: readonly Scenario[];
}

/**
 * By name, the longest first. Each is loaded by whoever runs it: all of them take an emulated
 * machine ten seconds.
 */
export const machines: Readonly<Record<string, () => Promise<Machine>>> = {
  debian: () => import('./debian.ts'),
  troubles: () => import('./troubles.ts'),
  basics: () => import('./basics.ts'),
  guest: () => import('./guest.ts'),
  benchmark: () => import('./benchmark.ts'),
};
