// A real Debian under systemd as the guest.
import type { Scenario } from '../scenario.ts';
import { debian } from '../scenarios/debian.ts';
import { logIsClean } from '../scenarios/log-is-clean.ts';

export const scenarios: readonly Scenario[] = [debian, logIsClean];
