// dom0 alone: backends that go away, and features that they may have.
import type { Scenario } from '../scenario.ts';
import { features } from '../scenarios/features.ts';
import { killed } from '../scenarios/killed.ts';
import { logIsClean } from '../scenarios/log-is-clean.ts';
import { lostServer } from '../scenarios/lost-server.ts';
import { qemuBackend } from '../scenarios/qemu-backend.ts';
import { backendTroubles } from '../scenarios/troubles.ts';

export const scenarios: readonly Scenario[] = [
  killed,
  backendTroubles,
  lostServer,
  qemuBackend,
  ...features,
  logIsClean,
];
