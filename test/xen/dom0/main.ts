/**
 * Runs the scenarios inside dom0 and reports each step over the second serial line. Started by
 * init.sh, which turns the exit code into QEMU's. An error anywhere ends in a code other than 0.
 */
import { existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { formatReportEvent, type ReportEvent } from '../report.ts';
import { machines } from './machines/index.ts';
import type { Lab, Scenario } from './scenario.ts';

const DEFAULT_TIMEOUT_MS = 600_000;

const serialLine = openSync('/dev/ttyS1', 'w');

function report(event: ReportEvent): void {
  writeSync(serialLine, `${formatReportEvent(event)}\n`);
}

/** Scenario names must contain one of the lines of this file, when it exists. */
async function chosenScenarios(): Promise<readonly Scenario[]> {
  const load = machines[readFileSync('/lab-machine', 'utf8')];
  const scenarios = (await load?.())?.scenarios ?? [];
  const file = '/lab-only';
  if (!existsSync(file)) return scenarios;
  const words = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  return scenarios.filter(({ name }) => words.some((word) => name.includes(word)));
}

async function runScenario(scenario: Scenario): Promise<boolean> {
  report({ event: 'scenario-start', name: scenario.name });
  const startMs = Date.now();
  const abort = new AbortController();
  const actions: (() => Promise<void> | void)[] = [];
  const lab: Lab = {
    step: (text) => report({ event: 'step', text }),
    cleanUp: (action) => void actions.push(action),
    signal: abort.signal,
  };

  const timeoutMs = scenario.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  let error: unknown;
  try {
    await withTimeout(scenario.run(lab), timeoutMs, abort);
  } catch (caught) {
    error = caught;
  }
  for (const action of actions.reverse()) {
    try {
      await withTimeout(Promise.resolve(action()), timeoutMs, abort);
    } catch (caught) {
      // The scenario's own error, if any, is the one that tells more.
      error ??= caught;
      report({ event: 'step', text: `clean-up: ${describe(caught)}` });
    }
  }

  const ok = error === undefined;
  const end = { event: 'scenario-end', name: scenario.name, ok, durationMs: Date.now() - startMs };
  report({ ...end, ...(ok ? {} : { error: describe(error) }) } as ReportEvent);
  return ok;
}

async function withTimeout(
  work: Promise<void>,
  timeoutMs: number,
  abort: AbortController,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      abort.abort();
      reject(new Error(`not finished within ${timeoutMs} ms`));
    }, timeoutMs);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const lines = (error.stack ?? error.message).split('\n').slice(0, 12);
  const cause = error.cause instanceof Error ? `; because: ${error.cause.message}` : '';
  return `${lines.join('\n')}${cause}`;
}

const chosen = await chosenScenarios();
report({ event: 'plan', names: chosen.map(({ name }) => name) });
let passed = 0;
for (const scenario of chosen) {
  if (await runScenario(scenario)) passed++;
}
report({ event: 'run-end', passed, failed: chosen.length - passed });
// A scenario may have left something that keeps the event loop alive: leave it all the same.
process.exit(chosen.length > 0 && passed === chosen.length ? 0 : 1);
