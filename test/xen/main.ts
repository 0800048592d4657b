/**
 * `npm run test:xen`: boots real Xen under QEMU and runs the scenarios of test/xen/dom0 inside it.
 *
 *   --only WORD     only scenarios with WORD in their name; may repeat. One runs only so: benchmark
 *                   measures
 *   --console       show the guest's console as it comes (it is always kept in .lab/console-*.log)
 *   --no-self-test  skip the proof that a crashing guest is taken as a failure
 *   --shell FILE    instead of the scenarios, run a shell script in dom0 and show what it prints
 *   --timeout S     seconds for each machine, default 1800
 *   --machines N    how many machines are up at once, default 2
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Machine, machines } from './dom0/machines/index.ts';
import { buildBenchmarkLayer } from './lab/benchmark-layer.ts';
import { buildDebianDisk } from './lab/debian-root.ts';
import { buildImage, type Image } from './lab/image.ts';
import { unpackPackages } from './lab/packages.ts';
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
    machines: { type: 'string', default: '2' },
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

interface Liar {
  readonly mode: string;
  readonly ends: (outcome: BootOutcome) => boolean;
}

interface Sums {
  readonly passed: number;
  readonly failed: number;
}

const LOOPBACK_MIB = { machine: 2048, dom0: 1664 };
/** By machine, where it is not the above. */
const MEMORY_MIB: Readonly<Record<string, typeof LOOPBACK_MIB>> = {
  // A guest has memory beside dom0's.
  guest: { machine: 3072, dom0: 1664 },
  debian: { machine: 3072, dom0: 1664 },
  // Two disks in memory, and the page cache of one.
  benchmark: { machine: 3072, dom0: 2560 },
};

/** Guests that claim success and then hang or go down; how each must end. The slowest first. */
const liars: readonly Liar[] = [
  { mode: 'hang-after-success', ends: ({ timedOut }) => timedOut },
  { mode: 'panic-after-success', ends: ({ exitCode }) => exitCode === 0 },
  { mode: 'poweroff-after-success', ends: ({ exitCode }) => exitCode === 0 },
  { mode: 'init-exits-after-success', ends: ({ exitCode }) => exitCode === 0 },
];

/** A boot of a guest that lies, which must be found out. */
async function selfTest(image: Image, { mode, ends }: Liar): Promise<Sums> {
  const outcome = await boot({
    image,
    mode,
    memoryMib: LOOPBACK_MIB,
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
  print(`${caught ? 'ok' : 'NOT OK'} - a guest that does "${mode}" is taken as a failure`);
  print(`    ${reasons.join('; ')}`);
  return caught ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
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
    memoryMib: MEMORY_MIB['guest'] ?? LOOPBACK_MIB,
    withProject: true,
    extraLayers: [image.guestKernelLayer],
    files: { '/lab-shell': readFileSync(script, 'utf8') },
    timeoutMs: Number(options.timeout) * 1000,
    isLastReport,
    onReport: (line) => process.stdout.write(`${line}\n`),
    onConsole: showConsole,
  });
}

const only = options.only ?? [];

/** Machines that prove nothing, and run when one of their scenarios is asked for. */
const ON_REQUEST: ReadonlySet<string> = new Set(['benchmark']);

/** Whether one of the machine's scenarios was asked for. */
async function isWanted(machine: string, load: () => Promise<Machine>): Promise<boolean> {
  if (only.length === 0) return !ON_REQUEST.has(machine);
  const { scenarios } = await load();
  return scenarios.some(({ name }) => only.some((word) => name.includes(word)));
}

/** What a machine has beside the layers that all have. */
function extraLayers(image: Image, machine: string): string[] {
  if (machine === 'benchmark') return [buildBenchmarkLayer(image)];
  return machine === 'guest' || machine === 'debian' ? [image.guestKernelLayer] : [];
}

/** Boots one machine and runs its scenarios. */
async function runMachine(image: Image, machine: string): Promise<Sums> {
  const disks = machine === 'debian' ? [await buildDebianDisk(unpackPackages(print), print)] : [];
  const say = (text: string): void => print(text.replace(/^/gm, `${machine.padEnd(8)} `));
  const outcome = await boot({
    image,
    mode: 'scenarios',
    memoryMib: MEMORY_MIB[machine] ?? LOOPBACK_MIB,
    withProject: true,
    disks,
    extraLayers: extraLayers(image, machine),
    isTimedByInstructions: machine === 'benchmark',
    files: { '/lab-machine': machine, ...(only.length > 0 && { '/lab-only': only.join('\n') }) },
    timeoutMs: Number(options.timeout) * 1000,
    isLastReport,
    onReport: (line) => {
      const event = parseReportEvent(line);
      say(event === undefined ? `    (dom0) ${line}` : describeEvent(event));
    },
    onConsole: showConsole,
  });
  const consoleFile = join(labFolder, `console-${machine}.log`);
  writeFileSync(consoleFile, `${outcome.consoleLines.join('\n')}\n`);
  const verdict = judge(outcome);
  for (const reason of verdict.reasons) say(`NOT OK - ${reason}`);
  if (verdict.reasons.length > 0) {
    say(`the end of the console (all of it is in ${consoleFile}):`);
    for (const line of outcome.consoleLines.slice(-30)) process.stdout.write(`    | ${line}\n`);
  }
  return verdict;
}

/** Runs all of them, so many at a time; each is one busy processor of this machine. */
async function runAll(tasks: readonly (() => Promise<Sums>)[], atOnce: number): Promise<Sums> {
  const left = [...tasks];
  const sums = { passed: 0, failed: 0 };
  const work = async (): Promise<void> => {
    for (let task = left.shift(); task !== undefined; task = left.shift()) {
      const { passed, failed } = await task();
      sums.passed += passed;
      sums.failed += failed;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return sums;
}

try {
  requireTools();
  mkdirSync(labFolder, { recursive: true });
  const image = buildImage(print);
  if (options.shell !== undefined) {
    await runShell(image, options.shell);
    process.exit(0);
  }
  const wanted: string[] = [];
  for (const [machine, load] of Object.entries(machines)) {
    if (await isWanted(machine, load)) wanted.push(machine);
  }
  if (wanted.length === 0) throw new LabError('no scenario has such a name');
  const atOnce = Number(options.machines);
  print(
    `booting Xen 4.17 with Linux ${image.kernelRelease} as dom0, under QEMU without KVM; ` +
      `${atOnce} machines at once`,
  );
  const { passed, failed } = await runAll(
    [
      ...wanted.map((machine) => () => runMachine(image, machine)),
      ...(options['no-self-test'] ? [] : liars.map((liar) => () => selfTest(image, liar))),
    ],
    atOnce,
  );
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  process.exitCode = failed === 0 ? 0 : 1;
} catch (error) {
  if (!(error instanceof LabError)) throw error;
  process.stderr.write(`test:xen: ${error.message}\n`);
  process.exitCode = 1;
}
