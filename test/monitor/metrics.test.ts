/**
 * Goal: what Prometheus is told is what the lanes counted, summed over lanes; histograms are
 * cumulative; and the rates of the status page are per second whatever the span.
 */
import { readFileSync } from 'node:fs';
import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import t from 'tap';
import { countReply, countRequest } from '../../src/dataplane/counters.ts';
import { Counter } from '../../src/dataplane/index.ts';
import { examineHealth } from '../../src/monitor/health.ts';
import { createMetrics } from '../../src/monitor/metrics.ts';
import { Sampler } from '../../src/monitor/sampler.ts';
import { FakeLane, fakeSource, fakeVbd } from './support.ts';

/** A request of 4 KiB that took `us`. */
function request({ counters }: FakeLane, command: number, us: number, errno = 0): void {
  countRequest(counters, command, 4096);
  countReply(counters, command, errno, us);
}

async function scrape(...lanes: FakeLane[]): Promise<(name: string) => number | undefined> {
  const text = await createMetrics(fakeSource([fakeVbd(lanes)])).metrics();
  const lines = new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => {
        const at = line.lastIndexOf(' ');
        return [line.slice(0, at), Number(line.slice(at + 1))] as const;
      }),
  );
  return (name) => lines.get(`xenblk_nbd_${name}`);
}

void t.test('the numbers of all lanes', async (t) => {
  const lanes = [new FakeLane(), new FakeLane()] as const;
  request(lanes[0], NbdCmd.READ, 10);
  request(lanes[1], NbdCmd.READ, 100);
  request(lanes[1], NbdCmd.READ, 2 ** 26);
  request(lanes[1], NbdCmd.READ, 2 ** 30, NbdErrno.EIO);
  request(lanes[0], NbdCmd.WRITE, 5);
  for (const { counters } of lanes) {
    counters.add(Counter.CLIENTS_NOW, 2);
    counters.add(Counter.RING_REQUESTS, 10);
    counters.add(Counter.RING_NOTIFICATIONS, 3);
    counters.add(Counter.RECOVERIES, 1);
    counters.add(Counter.SLOT_WAITS, 1);
    counters.add(Counter.FAILED_WRITES, 3);
  }
  const value = await scrape(...lanes);
  const expected: readonly (readonly [name: string, value: number])[] = [
    ['info{version="1.2.3"}', 1],
    ['clients{vbd="xvdb"}', 4],
    ['client_refusals_total{reason="too_many"}', 4],
    ['requests_total{vbd="xvdb",command="read"}', 4],
    ['requests_total{vbd="xvdb",command="write"}', 1],
    ['bytes_total{vbd="xvdb",direction="read"}', 16_384],
    ['errors_total{vbd="xvdb",error="EIO"}', 1],
    ['errors_total{vbd="xvdb",error="EPERM"}', 0],
    ['ring_requests_total{vbd="xvdb"}', 20],
    ['notifications_total{vbd="xvdb"}', 6],
    ['notifications_saved_total{vbd="xvdb"}', 14],
    ['recoveries_total{vbd="xvdb"}', 1],
    ['limit_waits_total{vbd="xvdb",limit="slots"}', 2],
    ['backend_errors_total{vbd="xvdb",operation="write"}', 6],
    ['backend_errors_total{vbd="xvdb",operation="read"}', 0],
    ['vbd_size_bytes{vbd="xvdb"}', 2 ** 30],
    ['ring_slots{vbd="xvdb"}', 128],
  ];
  for (const [name, wanted] of expected) t.equal(value(name), wanted, name);
  const bucket = (le: string): number | undefined =>
    value(`request_duration_seconds_bucket{vbd="xvdb",command="read",le="${le}"}`);
  t.equal(bucket('0.000008'), 0);
  t.equal(bucket('0.000016'), 1);
  t.equal(bucket('0.000064'), 1);
  t.equal(bucket('0.000128'), 2);
  t.equal(bucket('67.108864'), 2, '2^26 us lie beyond the last bound');
  t.equal(bucket('+Inf'), 4);
  t.equal(value('request_duration_seconds_count{vbd="xvdb",command="read"}'), 4);
  const sum = value('request_duration_seconds_sum{vbd="xvdb",command="read"}') ?? 0;
  t.ok(Math.abs(sum - (110 + 2 ** 26 + 2 ** 30) / 1e6) < 1e-6, `${sum} s`);
});

void t.test('the dashboard for Grafana asks for metrics that there are', async (t) => {
  const text = await createMetrics(fakeSource([fakeVbd([new FakeLane()])])).metrics();
  const path = new URL('../../../src/monitor/grafana-dashboard.json', import.meta.url);
  const dashboard = JSON.parse(readFileSync(path, 'utf8')) as {
    panels: { title: string; targets: { expr: string }[] }[];
  };
  const asked = dashboard.panels.flatMap(({ targets }) =>
    targets.flatMap(({ expr }) => expr.match(/xenblk_nbd_[a-z_]+/g) ?? []),
  );
  t.ok(asked.length > 10, `${asked.length} metrics`);
  const missing = asked.filter((name) => !text.includes(`\n${name}{`));
  t.strictSame(missing, []);
});

void t.test('rates', async (t) => {
  const lane = new FakeLane();
  let nowMs = 0;
  const clock = { nowMs: () => nowMs, unixMs: () => 1_000_000 + nowMs };
  const sampler = new Sampler(() => [fakeVbd([lane], { isWaiting: true })], clock);
  request(lane, NbdCmd.READ, 7);
  nowMs = 1000;
  t.match(sampler.sample().vbds[0], { requests: { read: 0 } }, 'what was before is no rate');
  for (let i = 0; i < 99; i++) request(lane, NbdCmd.READ, 7);
  request(lane, NbdCmd.FLUSH, 5000);
  for (const kind of ['READS', 'WRITES', 'FLUSHES', 'TRIMS'] as const) {
    lane.counters.add(Counter[`FAILED_${kind}`], 2);
  }
  nowMs = 3000;
  const [vbd] = sampler.sample().vbds;
  t.match(vbd, {
    name: 'xvdb',
    isWaiting: true,
    requests: { read: 49.5, flush: 0.5, write: 0 },
    readBytes: (99 * 4096) / 2,
    backendErrors: 8,
    latencyUs: { read: { p50: 8, p99: 8 }, all: { p50: 8, p99: 8, max: 5120 }, write: { max: 0 } },
  });
  t.equal(vbd?.heat[1], 49.5);
  t.equal(vbd?.heat[11], 0.5, 'below 8192 us');
  nowMs = 4000;
  t.match(sampler.sample().vbds[0], {
    requests: { read: 0, flush: 0 },
    backendErrors: 8,
    latencyUs: { all: { max: 0 } },
  });
  for (let i = 0; i < 400; i++) sampler.sample();
  t.equal(sampler.history.length, 300, 'five minutes are kept');
});

void t.test('health', async (t) => {
  const lanes = [new FakeLane(), new FakeLane()] as const;
  const ask = (changes = {}, vbd = {}): ReturnType<typeof examineHealth> =>
    examineHealth(fakeSource([fakeVbd(lanes, vbd)], changes), 30);
  t.strictSame(await ask(), { status: 'ok', vbds: [] });
  t.strictSame(await ask({ state: () => 'starting' }), { status: 'starting', vbds: [] });
  t.strictSame(await ask({}, { isWaiting: true }), { status: 'waiting', vbds: ['xvdb'] });
  lanes[1].isStuck = true;
  t.strictSame(await ask({}, { isWaiting: true }), { status: 'stuck', vbds: ['xvdb'] });
  lanes[1].isStuck = false;
  t.strictSame(await ask(), { status: 'ok', vbds: [] });
});
