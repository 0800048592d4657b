// Goal: a limit that made requests wait is told once, with its vbd, how often, and what raises it;
// again only after ten minutes, with what has come since.
import t from 'tap';
import { LimitWatch } from '../../src/daemon/limit-watch.ts';
import type { LogDetails, Logger } from '../../src/daemon/log.ts';
import { Counter, Counters } from '../../src/dataplane/index.ts';
import { logged, startSimulated } from './support/simulated.ts';

void t.test('once in a while', async (t) => {
  const lines: { details: LogDetails; message: string }[] = [];
  const info = (_event: string, details: LogDetails, message: string): void => {
    lines.push({ details, message });
  };
  const log: Logger = { debug: info, info, warn: info, error: info };
  const lanes = [{ counters: new Counters() }, { counters: new Counters() }];
  const [one, other] = lanes;
  let nowMs = 0;
  const watch = new LimitWatch({
    log,
    vbds: () => [
      { name: 'xvdb', lanes },
      { name: 'xvdc', lanes: [] },
    ],
    nowMs: () => nowMs,
  });
  const taken = (): unknown[] => lines.splice(0).map(({ details }) => details);
  watch.look();
  t.strictSame(taken(), [], 'nothing has happened');
  one?.counters.add(Counter.PAGE_WAITS, 1);
  watch.look();
  t.match(lines[0]?.message, /xvdb: requests have waited once for granted pages; .*doctor/);
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'pages', times: 1 }]);
  one?.counters.add(Counter.PAGE_WAITS, 4);
  other?.counters.add(Counter.PAGE_WAITS, 3);
  other?.counters.add(Counter.SLOT_WAITS, 2);
  nowMs = 599_999;
  watch.look();
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'slots', times: 2 }], 'another kind is told');
  nowMs = 600_000;
  watch.look();
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'pages', times: 7 }]);
  one?.counters.add(Counter.OPERATION_WAITS, 1);
  watch.stop();
  t.strictSame(taken(), [{ vbd: 'xvdb', limit: 'requests', times: 1 }], 'a last look');
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
