// The order in which the scenarios run, on machines that can be up at the same time.
import type { Scenario } from '../scenario.ts';
import { benchmark } from './benchmark.ts';
import { debian } from './debian.ts';
import { features } from './features.ts';
import { fileSystem } from './file-system.ts';
import { fixtureWorks } from './fixture-works.ts';
import { guest } from './guest.ts';
import { killed } from './killed.ts';
import { library } from './library.ts';
import { logIsClean } from './log-is-clean.ts';
import { lostServer } from './lost-server.ts';
import { qemuBackend } from './qemu-backend.ts';
import { realHost } from './real-host.ts';
import { servedBasics } from './served-basics.ts';
import { survey } from './survey.ts';
import { takeOver } from './take-over.ts';
import { backendTroubles } from './troubles.ts';
import { vsock } from './vsock.ts';

/** Scenarios by the machine that they run on, one after the other. The longest comes first. */
export const machines: Readonly<Record<string, readonly Scenario[]>> = {
  debian: [debian, logIsClean],
  guest: [guest, logIsClean],
  troubles: [killed, backendTroubles, lostServer, qemuBackend, ...features, logIsClean],
  basics: [
    fixtureWorks,
    ...realHost,
    ...takeOver,
    fileSystem,
    ...servedBasics,
    ...library,
    survey,
    vsock,
    logIsClean,
  ],
  benchmark: [benchmark],
};
