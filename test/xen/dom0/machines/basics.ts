// dom0 alone: what the host, the daemon and the library do when all is well.
import type { Scenario } from '../scenario.ts';
import { fileSystem } from '../scenarios/file-system.ts';
import { fixtureWorks } from '../scenarios/fixture-works.ts';
import { library } from '../scenarios/library.ts';
import { logIsClean } from '../scenarios/log-is-clean.ts';
import { realHost } from '../scenarios/real-host.ts';
import { servedBasics } from '../scenarios/served-basics.ts';
import { survey } from '../scenarios/survey.ts';
import { takeOver } from '../scenarios/take-over.ts';
import { vsock } from '../scenarios/vsock.ts';

export const scenarios: readonly Scenario[] = [
  fixtureWorks,
  ...realHost,
  ...takeOver,
  fileSystem,
  ...servedBasics,
  ...library,
  survey,
  vsock,
  logIsClean,
];
