// The order in which the scenarios run in dom0.
import type { Scenario } from '../scenario.ts';
import { features } from './features.ts';
import { fileSystem } from './file-system.ts';
import { fixtureWorks } from './fixture-works.ts';
import { guest } from './guest.ts';
import { killed } from './killed.ts';
import { library } from './library.ts';
import { logIsClean } from './log-is-clean.ts';
import { realHost } from './real-host.ts';
import { servedBasics } from './served-basics.ts';
import { survey } from './survey.ts';
import { takeOver } from './take-over.ts';

import { backendTroubles } from './troubles.ts';

export const scenarios: readonly Scenario[] = [
  fixtureWorks,
  ...realHost,
  ...takeOver,
  fileSystem,
  ...servedBasics,
  ...library,
  ...features,
  survey,
  killed,
  backendTroubles,
  guest,
  logIsClean,
];
