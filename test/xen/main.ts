/**
 * `npm run test:xen`: boots real Xen under QEMU and runs the scenarios of test/xen/dom0 inside it.
 *
 *   --only WORD     only scenarios with WORD in their name; may repeat
 *   --console       show the guest's console as it comes (it is always kept in .lab/console.log)
 *   --no-self-test  skip the proof that a crashing guest is taken as a failure
 *   --shell FILE    instead of the scenarios, run a shell script in dom0 and show what it prints
 *   --timeout S     seconds for the whole run in dom0, default 1800
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildImage, type Image } from './lab/image.ts';
import { labFolder } from './lab/paths.ts';
import { type BootOutcome, boot } from './lab/qemu.ts';
import { LabError, requireTools } from './lab/tools.ts';
import { judge } from './lab/verdict.ts';
import { parseReportEvent, type ReportEvent } from './report.ts';

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    console: { type: 'boolean', default: false },
    'no-self-test': { type: 'boolean', default: false },
    shell: { type: 'string' },
    timeout: { type: 'string', default: '1800' },
  },
});

const startMs = Date.now();

function print(line: string): void {
  const seconds = ((Date.now() - startMs) / 1000).toFixed(1).padStart(6);
  process.stdout.write(`${seconds}s ${line}\n`);
}

function describeEvent(event: ReportEvent): string {
  switch (event.event) {
    case 'dom0-up':
      return `dom0 is up, ${event.uptimeSeconds} s after its kernel started`;
    case 'plan':
      return `${event.names.length} scenarios`;
    case 'scenario-start':
      return `scenario: ${event.name}`;
    case 'step':
      return event.text.replace(/^/gm, '    ');
    case 'scenario-end': {
      const line = `${event.ok ? 'ok' : 'NOT OK'} - ${event.name} (${event.durationMs} ms)`;
      return event.error === undefined ? line : `${line}\n${event.error.replace(/^/gm, '    | ')}`;
    }
    case 'run-end':
      return `dom0 is done: ${event.passed} passed, ${event.failed} failed`;
  }
}

/** Guests that claim success and then go down or hang; how each must end. */
const liars: readonly { mode: string; ends: (outcome: BootOutcome) => boolean }[] = [
  { mode: 'panic-after-success', ends: ({ exitCode }) => exitCode === 0 },
  { mode: 'poweroff-after-success', ends: ({ exitCode }) => exitCode === 0 },
  { mode: 'init-exits-after-success', ends: ({ exitCode }) => exitCode === 0 },
  { mode: 'hang-after-success', ends: ({ timedOut }) => timedOut },
];

async function selfTest(image: Image): Promise<{ passed: number; failed: number }> {
  let passed = 0;
  for (const { mode, ends } of liars) {
    const outcome = await boot({
      image,
      mode,
      withProject: false,
      timeoutMs: 120_000,
      isLastReport,
      onReport: () => {},
      onConsole: showConsole,
    });
    // The guest must have lied in full and ended as planned, or nothing is proved.
    const lied = outcome.reportLines.some(isLastReport);
    const { reasons } = judge(outcome);
    const caught = lied && ends(outcome) && reasons.length > 0;
    if (caught) passed++;
    print(`${caught ? 'ok' : 'NOT OK'} - a guest that does "${mode}" is taken as a failure`);
    print(`    ${reasons.join('; ')}`);
  }
  return { passed, failed: liars.length - passed };
}

function isLastReport(line: string): boolean {
  return parseReportEvent(line)?.event === 'run-end';
}

function showConsole(line: string): void {
  if (options.console) process.stdout.write(`  console: ${line}\n`);
}

/** For looking around by hand: a script of any kind, in dom0 with all of the lab's programs. */
async function runShell(image: Image, script: string): Promise<void> {
  await boot({
    image,
    mode: 'shell',
    withProject: true,
    files: { '/lab-shell': readFileSync(script, 'utf8') },
    timeoutMs: Number(options.timeout) * 1000,
    isLastReport,
    onReport: (line) => process.stdout.write(`${line}\n`),
    onConsole: showConsole,
  });
}

async function runScenarios(image: Image): Promise<{ passed: number; failed: number }> {
  const only = options.only ?? [];
  const outcome: BootOutcome = await boot({
    image,
    mode: 'scenarios',
    withProject: true,
    files: only.length === 0 ? {} : { '/lab-only': only.join('\n') },
    timeoutMs: Number(options.timeout) * 1000,
    isLastReport,
    onReport: (line) => {
      const event = parseReportEvent(line);
      print(event === undefined ? `    (dom0) ${line}` : describeEvent(event));
    },
    onConsole: showConsole,
  });
  const consoleFile = join(labFolder, 'console.log');
  writeFileSync(consoleFile, `${outcome.consoleLines.join('\n')}\n`);
  const verdict = judge(outcome);
  for (const reason of verdict.reasons) print(`NOT OK - ${reason}`);
  if (verdict.reasons.length > 0) {
    print(`the end of the console (all of it is in ${consoleFile}):`);
    for (const line of outcome.consoleLines.slice(-30)) process.stdout.write(`    | ${line}\n`);
  }
  return verdict;
}

try {
  requireTools();
  mkdirSync(labFolder, { recursive: true });
  const image = buildImage(print);
  if (options.shell !== undefined) {
    await runShell(image, options.shell);
    process.exit(0);
  }
  print(`booting Xen 4.17 with Linux ${image.kernelRelease} as dom0, under QEMU without KVM`);
  const main = await runScenarios(image);
  const self = options['no-self-test'] ? { passed: 0, failed: 0 } : await selfTest(image);
  const failed = main.failed + self.failed;
  process.stdout.write(`${main.passed + self.passed} passed, ${failed} failed\n`);
  process.exitCode = failed === 0 ? 0 : 1;
} catch (error) {
  if (!(error instanceof LabError)) throw error;
  process.stderr.write(`test:xen: ${error.message}\n`);
  process.exitCode = 1;
}
