// The order in which the scenarios run in dom0.
import type { Scenario } from '../scenario.ts';
import { fixtureWorks } from './fixture-works.ts';
import { logIsClean } from './log-is-clean.ts';
import { realHost } from './real-host.ts';

export const scenarios: readonly Scenario[] = [fixtureWorks, ...realHost, logIsClean];
