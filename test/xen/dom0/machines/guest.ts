// A guest of dom0's that holds nothing but the daemon and the lab's agent.
import type { Scenario } from '../scenario.ts';
import { guest } from '../scenarios/guest.ts';
import { logIsClean } from '../scenarios/log-is-clean.ts';

export const scenarios: readonly Scenario[] = [guest, logIsClean];
