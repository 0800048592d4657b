// Goal: a limit that made requests wait is told once, with its vbd, how often, and what raises it;
// again only after ten minutes, with what has come since. So are errors of the backend, after one
// minute, with their kinds and the place of the last.
import t from 'tap';
import { LaneWatch } from '../../src/daemon/lane-watch.ts';
import type { LogDetails, Logger } from '../../src/daemon/log.ts';
import { Counter, Counters } from '../../src/dataplane/index.ts';
import { logged, startSimulated } from './support/simulated.ts';

/** A watch over a vbd of two lanes, on a clock that the test sets. */
function watching() {
  const lines: { event: string; details: LogDetails; message: string }[] = [];
  const write = (event: string, details: LogDetails, message: string): void => {
    lines.push({ event, details, message });
  };
  const log: Logger = { debug: write, info: write, warn: write, error: write };
  const one = new Counters();
  const other = new Counters();
  const lanes = [{ counters: one }, { counters: other }];
  const clock = { nowMs: 0 };
  const watch = new LaneWatch({
    log,
    vbds: () => [
      { name: 'xvdb', lanes },
      { name: 'xvdc', lanes: [] },
    ],
    nowMs: () => clock.nowMs,
  });
  return { watch, one, other, clock, lines: () => lines.splice(0) };
}

void t.test('limits, once in a while', async (t) => {
  const { watch, one, other, clock, lines } = watching();
  const taken = (): unknown[] => lines().map(({ details }) => details);
  watch.look();
  t.strictSame(taken(), [], 'nothing has happened');
  one.add(Counter.PAGE_WAITS, 1);
  watch.look();
  const [first, ...more] = lines();
  t.strictSame(more, []);
  t.match(first?.message, /xvdb: requests have waited once for granted pages; .*doctor/);
  t.strictSame(first?.details, { vbd: 'xvdb', limit: 'pages', times: 1 });
  one.add(Counter.PAGE_WAITS, 4);
  other.add(Counter.PAGE_WAITS, 3);
  other.add(Counter.SLOT_WAITS, 2);
  clock.nowMs = 599_999;
  watch.look();
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'slots', times: 2 }], 'another kind is told');
  clock.nowMs = 600_000;
  watch.look();
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'pages', times: 7 }]);
  one.add(Counter.OPERATION_WAITS, 1);
  watch.stop();
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'requests', times: 1 }], 'a last look');
});

void t.test('errors of the backend, with the place of the last', async (t) => {
  const { watch, one, other, clock, lines } = watching();
  one.add(Counter.FAILED_READS, 2);
  one.values[Counter.FAILED_BYTE] = 4096;
  one.values[Counter.FAILED_MS] = 20;
  other.add(Counter.FAILED_WRITES, 1);
  other.values[Counter.FAILED_BYTE] = 512;
  other.values[Counter.FAILED_MS] = 10;
  watch.look();
  const [first, ...more] = lines();
  t.strictSame(more, []);
  t.match(first, {
    event: 'backend-errors',
    details: { vbd: 'xvdb', reads: 2, writes: 1, lastByte: 4096 },
    message:
      /^xvdb: .* answered 2 reads and a write with an error, the last in a request at byte 4096; .*EIO/,
  });
  one.add(Counter.FAILED_READS, 1);
  clock.nowMs = 59_999;
  watch.look();
  t.strictSame(lines(), [], 'not again for a minute');
  one.add(Counter.FAILED_FLUSHES, 3);
  one.values[Counter.FAILED_BYTE] = -1;
  one.values[Counter.FAILED_MS] = 59_000;
  clock.nowMs = 60_000;
  watch.look();
  const [second, ...others] = lines();
  t.strictSame(others, []);
  t.strictSame(second?.details, { vbd: 'xvdb', reads: 1, flushes: 3, lastByte: undefined });
  t.notMatch(second?.message, /at byte/, 'a flush has no place');
  other.add(Counter.FAILED_TRIMS, 1);
  watch.stop();
  t.strictSame(
    lines().map(({ details }) => details),
    [{ vbd: 'xvdb', trims: 1, lastByte: undefined }],
    'nothing is left untold at the end',
  );
});

void t.test('of a running daemon', async (t) => {
  const { daemon, open } = await startSimulated(t, ['--max-requests', '4', '--log-level', 'info']);
  const clients = [await open(), await open()];
  const writes = clients.flatMap((client) =>
    Array.from({ length: 200 }, (_, i) => client.write(i * 4096, Buffer.alloc(4096, 1))),
  );
  await Promise.all(writes);
  for (const client of clients) await client.disconnect();
  await daemon.stop();
  const limits = logged(daemon.log, 'limit-hit').map(({ limit }) => limit);
  t.ok(limits.includes('requests'), limits.join());
});

void t.test('a backend that fails, of a running daemon', async (t) => {
  const faults = ['--simulate-faults', 'seed=5,error=1', '--log-level', 'info'];
  const { daemon, open } = await startSimulated(t, faults);
  const client = await open();
  t.equal((await client.read(8192, 4096)).error, 5, 'EIO');
  t.equal((await client.flush()).error, 5);
  await client.disconnect();
  await daemon.stop();
  // Several lines if somebody looked in between; the daemon's own last flush has one of its own.
  const lines = logged(daemon.log, 'backend-errors');
  const sum = (kind: string): number =>
    lines.reduce((count, line) => count + Number(line[kind] ?? 0), 0);
  t.strictSame([sum('reads'), sum('writes'), sum('flushes')], [1, 0, 1]);
  t.ok(logged(daemon.log, 'flush-failed').length >= 1);
});

void t.test('what fails while the daemon stops is told as well', async (t) => {
  const faults = ['--simulate-faults', 'seed=5,error=1,delay=1000', '--log-level', 'info'];
  const { daemon, open } = await startSimulated(t, faults);
  const client = await open();
  const read = client.read(8192, 4096);
  // Its reply comes later than this one.
  t.equal((await client.read(2 ** 40, 4096)).error, 22, 'EINVAL');
  await daemon.stop();
  t.equal((await read).error, 5);
  t.strictSame(
    logged(daemon.log, 'backend-errors').map(({ reads }) => reads),
    [1],
  );
});

void t.test('what has failed is told before its vbd goes', async (t) => {
  const faults = ['--simulate-faults', 'seed=5,error=1,unplug=3', '--log-level', 'info'];
  const { daemon, open } = await startSimulated(t, ['xvda', 'xvdb', ...faults]);
  const names = ['xvda', 'xvdb'];
  for (const name of names) t.equal((await (await open(name)).read(0, 4096)).error, 5);
  // The one that goes first is not there any more when the daemon looks a last time.
  await daemon.waitForEnd();
  const told = logged(daemon.log, 'backend-errors').map(({ vbd }) => String(vbd));
  t.strictSame(told.sort(), names);
});
