/**
 * Goal: a screen of `top` fits its terminal whatever is shown, says what it must, and obeys no
 * control characters; which daemon is meant is clear or said to be not.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Report, VbdSample } from '../../src/monitor/index.ts';
import { drawScreen, findDaemon, type ScreenOptions } from '../../src/top/index.ts';
import { makeFolder } from '../daemon/support/simulated.ts';

const LATENCY = { p50: 160, p95: 3600, p99: 8192, max: 24_600 };
const OPTIONS: ScreenOptions = {
  columns: 80,
  rows: 24,
  vbdIndex: 0,
  isUnicode: false,
  nowMs: 1_000_000,
  footer: 'q: quit',
};

function sample(name: string, changes: Partial<VbdSample> = {}): VbdSample {
  return {
    name,
    isWaiting: false,
    clients: 1,
    requests: { read: 1400, write: 655, flush: 1, trim: 0, zeroes: 0, other: 0 },
    readBytes: 5.5 * 2 ** 20,
    writtenBytes: 2.5 * 2 ** 20,
    errors: 2,
    ringRequests: 2100,
    notifications: 676,
    waits: 3,
    latencyUs: {
      read: LATENCY,
      write: LATENCY,
      flush: { p50: 0, p95: 0, p99: 0, max: 0 },
      all: LATENCY,
    },
    heat: [0, 1, 5, 100, 40, 3],
    slotsUsed: 64,
    slotCount: 128,
    pagesUsed: 768,
    pageCount: 768,
    recoveries: 4,
    backendErrors: 7,
    ...changes,
  };
}

function report(changes: Partial<Report> = {}): Report {
  const vbd = {
    exportName: 'x',
    sizeBytes: 2 ** 30,
    isReadOnly: false,
    isWaiting: false,
    features: {},
  };
  return {
    version: '1.2.3',
    pid: 42,
    startedMs: 1_000_000 - 200_000,
    state: 'serving',
    vbds: [
      { ...vbd, name: 'xvdb' },
      { ...vbd, name: 'xvdc', isReadOnly: true, isWaiting: true },
    ],
    clientCount: 1,
    clients: [
      {
        id: 7,
        peer: '10.0.0.1:1000',
        vbd: 'xvdb',
        exportName: 'xvdb',
        isTls: true,
        sinceMs: 990_000,
      },
    ],
    ...changes,
  };
}

const SAMPLES = Array.from({ length: 300 }, (_, index) => ({
  atMs: index * 1000,
  spanMs: 1000,
  vbds: [
    sample('xvdb', { readBytes: index * 1000 }),
    sample('xvdc', { slotsUsed: 0, backendErrors: 0 }),
  ],
}));

void t.test('80 columns, 24 lines', async (t) => {
  const lines = drawScreen({ report: report(), samples: SAMPLES }, OPTIONS);
  t.equal(lines.length, 24);
  t.ok(
    lines.every((line) => line.length <= 80 && /^[\x20-\x7e]*$/.test(line)),
    'in ASCII',
  );
  const text = lines.join('\n');
  for (const says of [
    /^xenblk-nbd 1\.2\.3 {2}process 42 +up 3 min$/m,
    /^xvdb \(1 of 2\), 1 GiB: serving, 7 ERRORS OF THE BACKEND$/m,
    /^2\.1 k requests\/s +read 292 KiB\/s +written 2\.5 MiB\/s +errors 2\/s$/m,
    /^ {2}read +160 us +3\.6 ms +8\.2 ms +24\.6 ms$/m,
    /^ {2}flush +- +- +- +-$/m,
    /^ring +\[#{15}\.{15}\] 64 of 128 slots$/m,
    /^pages +\[#{30}\] 768 of 768 in use$/m,
    /3 waits\/s {2}4 recoveries$/m,
    /^ +7 {2}10\.0\.0\.1:1000 \(TLS\) {2}xvdb {2}10 s$/m,
    /^read +[_.\-=+*#@]+ 292 KiB\/s$/m,
  ]) {
    t.match(text, says);
  }
  t.equal(lines.at(-1), 'q: quit');
});

void t.test('the next vbd', async (t) => {
  const [, line] = drawScreen({ report: report(), samples: SAMPLES }, { ...OPTIONS, vbdIndex: 3 });
  t.equal(line, 'xvdc (2 of 2), 1 GiB, read-only: WAITING FOR ITS BACKEND');
});

void t.test('any size, and anything to show', async (t) => {
  const evil = report({ version: '\x1b[31m' });
  for (const [columns, rows] of [
    [1, 1],
    [20, 5],
    [80, 24],
    [300, 90],
  ] as const) {
    for (const samples of [SAMPLES, SAMPLES.slice(0, 1), []]) {
      for (const shown of [report(), evil, report({ vbds: [], state: 'starting' })]) {
        for (const isUnicode of [true, false]) {
          const lines = drawScreen(
            { report: shown, samples },
            { ...OPTIONS, columns, rows, isUnicode },
          );
          t.equal(lines.length, rows);
          t.ok(lines.every((line) => line.length <= columns && !line.includes('\x1b')));
        }
      }
    }
  }
});

void t.test('which daemon', async (t) => {
  const folder = makeFolder(t);
  t.throws(() => findDaemon(undefined, folder), /no daemon with metrics in/);
  t.throws(() => findDaemon(undefined, '/nowhere'), /no daemon with metrics in/);
  writeFileSync(join(folder, 'xvdb.metrics'), '');
  writeFileSync(join(folder, 'xvdb.sock'), '');
  t.strictSame(findDaemon(undefined, folder), { kind: 'unix', path: join(folder, 'xvdb.metrics') });
  writeFileSync(join(folder, 'xvdc.metrics'), '');
  t.throws(() => findDaemon(undefined, folder), /several daemons run: xvdb, xvdc; say which/);
  t.strictSame(findDaemon('xvdc', folder), { kind: 'unix', path: join(folder, 'xvdc.metrics') });
  t.strictSame(findDaemon('h:1', folder), { kind: 'tcp', host: 'h', port: 1 });
  t.strictSame(findDaemon('./a', folder), { kind: 'unix', path: './a' });
  t.throws(() => findDaemon('xvdz', folder), /xvdz is not an address/);
});
