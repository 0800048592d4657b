/**
 * Was a boot of the lab good? Pure: what was seen -> the reasons why not.
 *
 * A run passes only if everything that must have happened was seen: dom0 named its scenarios, each
 * of them ended well, dom0 said that it was done, and QEMU left by the debug exit device with the
 * one code that means success. A guest that crashes, panics, reboots, powers off or hangs produces
 * none of this, whatever it had said before.
 */
import { parseReportEvent, type ReportEvent } from '../report.ts';
import type { BootOutcome } from './qemu.ts';

/** dom0 writes 16 to the debug exit port; QEMU exits with 2 * 16 + 1. */
export const EXIT_ALL_PASSED = 33;
/** dom0 writes 17. */
export const EXIT_SOME_FAILED = 35;

export interface Verdict {
  readonly passed: number;
  readonly failed: number;
  /** Why the run is not good; empty for a good one. */
  readonly reasons: readonly string[];
}

/** Lines of a console that no healthy run shows. */
const trouble = [
  /\bkernel BUG at\b/,
  /\bBUG: /,
  /\bKernel panic\b/,
  /\bOops: /,
  /\bWARNING: CPU/,
  /\bgeneral protection fault\b/,
  /\bDom(?:ain )?0 crashed\b/,
  /\bXen BUG at\b/,
  /\bPanic on CPU\b/,
  /\bFATAL TRAP\b/,
  /\bOut of memory: Killed\b/,
];

/** The first line of `lines` that tells of a broken kernel or hypervisor, if any. */
export function findTrouble(lines: readonly string[]): string | undefined {
  return lines.find((line) => trouble.some((pattern) => pattern.test(line)));
}

export function judge(outcome: BootOutcome): Verdict {
  const events: ReportEvent[] = [];
  for (const line of outcome.reportLines) {
    const event = parseReportEvent(line);
    if (event !== undefined) events.push(event);
  }
  const planned = events.flatMap((event) => (event.event === 'plan' ? event.names : []));
  const ended = new Map<string, boolean>();
  for (const event of events) {
    if (event.event === 'scenario-end') ended.set(event.name, event.ok);
  }
  const runEnds = events.filter((event) => event.event === 'run-end');

  const reasons: string[] = [];
  if (planned.length === 0) reasons.push('dom0 announced no scenario');
  for (const name of planned) {
    if (ended.get(name) === undefined) reasons.push(`"${name}" did not end`);
    else if (ended.get(name) === false) reasons.push(`"${name}" failed`);
  }
  if (runEnds.length !== 1) reasons.push('dom0 did not say once that the run had ended');
  if (outcome.timedOut) reasons.push(`the time of ${outcome.durationMs} ms was up`);
  else if (outcome.exitCode !== EXIT_ALL_PASSED) reasons.push(describeExit(outcome));
  const troubleLine = findTrouble(outcome.consoleLines);
  if (troubleLine !== undefined) reasons.push(`the console shows: ${troubleLine.trim()}`);

  const passed = planned.filter((name) => ended.get(name) === true).length;
  const failed = planned.length - passed;
  // A run that is bad for a reason outside the scenarios counts as one more failure.
  return { passed, failed: failed === 0 && reasons.length > 0 ? 1 : failed, reasons };
}

function describeExit({ exitCode, signal }: BootOutcome): string {
  if (exitCode === EXIT_SOME_FAILED) return 'dom0 reported failures';
  if (exitCode === 0) return 'the machine went down by itself: a crash, panic, reboot or power-off';
  return `QEMU ended with ${exitCode === null ? signal : `exit code ${exitCode}`}`;
}
