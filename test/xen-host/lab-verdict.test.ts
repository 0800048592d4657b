/**
 * Goal: only a run of the Xen lab that went well in every respect passes.
 * Method: a good outcome, and the same with one thing wrong at a time.
 */
import t from 'tap';
import type { BootOutcome } from '../xen/lab/qemu.ts';
import { findTrouble, judge } from '../xen/lab/verdict.ts';
import { formatReportEvent, parseReportEvent, type ReportEvent } from '../xen/report.ts';

const goodEvents: readonly ReportEvent[] = [
  { event: 'dom0-up', uptimeSeconds: 5 },
  { event: 'plan', names: ['a', 'b'] },
  { event: 'scenario-start', name: 'a' },
  { event: 'step', text: 'did something' },
  { event: 'scenario-end', name: 'a', ok: true, durationMs: 1 },
  { event: 'scenario-end', name: 'b', ok: true, durationMs: 1 },
  { event: 'run-end', passed: 2, failed: 0 },
];

function outcome(change: Partial<BootOutcome> & { events?: readonly ReportEvent[] }): BootOutcome {
  const { events = goodEvents, ...rest } = change;
  return {
    exitCode: 33,
    signal: null,
    timedOut: false,
    reportLines: events.map(formatReportEvent),
    consoleLines: ['[    2.0] Grant table initialized'],
    durationMs: 10,
    ...rest,
  };
}

void t.test('a good run', (t) => {
  t.same(judge(outcome({})), { passed: 2, failed: 0, reasons: [] });
  t.end();
});

const bad: Record<string, Parameters<typeof outcome>[0]> = {
  'power-off, panic or reboot after all went well': { exitCode: 0 },
  'dom0 said that something failed': { exitCode: 35 },
  'QEMU failed': { exitCode: 1 },
  'QEMU was killed': { exitCode: null, signal: 'SIGKILL' },
  'out of time, though with the right code': { timedOut: true },
  'nothing was reported': { events: [] },
  'no plan': { events: goodEvents.filter(({ event }) => event !== 'plan') },
  'an empty plan': {
    events: [
      { event: 'plan', names: [] },
      { event: 'run-end', passed: 0, failed: 0 },
    ],
  },
  'a scenario never ended': { events: goodEvents.toSpliced(5, 1) },
  'a scenario failed': {
    events: goodEvents.with(5, { event: 'scenario-end', name: 'b', ok: false, durationMs: 1 }),
  },
  'a scenario passed and then failed': {
    events: [...goodEvents, { event: 'scenario-end', name: 'a', ok: false, durationMs: 1 }],
  },
  'the end was not reported': { events: goodEvents.slice(0, -1) },
  'the end was reported twice': { events: [...goodEvents, ...goodEvents.slice(-1)] },
  'a kernel BUG on the console': {
    consoleLines: ['[   99.1] kernel BUG at drivers/xen/evtchn.c:422!'],
  },
  'a warning on the console': { consoleLines: ['[   99.1] WARNING: CPU: 0 PID: 1 at mm/x.c:1'] },
};

for (const [name, change] of Object.entries(bad)) {
  void t.test(name, (t) => {
    const verdict = judge(outcome(change));
    t.not(verdict.reasons.length, 0);
    t.not(verdict.failed, 0);
    t.end();
  });
}

void t.test('lines that tell of a broken guest', (t) => {
  const lines = [
    'BUG: unable to handle page fault for address: 0',
    'Kernel panic - not syncing: sysrq triggered crash',
    '(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.',
    '(XEN) Domain 0 crashed: ',
    '(XEN) Panic on CPU 0:',
    '(XEN) Xen BUG at common/sched.c:1',
    'Oops: 0000 [#1] PREEMPT SMP NOPTI',
  ];
  for (const line of lines) t.equal(findTrouble(['fine', `[  1.0] ${line}`]), `[  1.0] ${line}`);
  t.equal(findTrouble(['Freed 656kB init memory', 'debugging is on']), undefined);
  t.end();
});

void t.test('noise on the serial line is no event', (t) => {
  for (const line of ['', 'hello', '{', '1', 'null', '{"event":"other"}', '{"a":1}']) {
    t.equal(parseReportEvent(line), undefined);
  }
  t.end();
});
