/**
 * Goal: `--metrics` of a real daemon, on TCP and on a Unix socket: it counts what clients do, tells
 * its health, feeds whoever watches, and an address that is in use fails at start.
 */

import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { fetchText, type HttpPlace, watchEvents } from '../monitor/http-text.ts';
import { runXenblkNbd } from '../support/daemon.ts';
import { loggedSoon, makeFolder, type Simulated, startSimulated } from './support/simulated.ts';

async function startMonitored(
  t: Test,
  args: readonly string[] = [],
): Promise<Simulated & { place: HttpPlace }> {
  const simulated = await startSimulated(t, ['--metrics', '127.0.0.1:0', ...args]);
  const [line] = await loggedSoon(simulated.daemon, 'metrics-open');
  const port = Number(new URL(String(line?.['address'])).port);
  return { ...simulated, place: { port } };
}

void t.test('what clients do is counted', async (t) => {
  const { open, place } = await startMonitored(t);
  const client = await open();
  const data = Buffer.alloc(4096, 7);
  t.equal((await client.write(0, data)).error, 0);
  t.equal((await client.write(4096, data)).error, 0);
  t.equal((await client.read(0, 8192)).error, 0);
  t.not((await client.read(2 ** 30, 512)).error, 0);
  t.equal((await client.flush()).error, 0);
  const { status, type, body } = await fetchText(place, '/metrics');
  t.equal(status, 200);
  t.match(type, /^text\/plain; version=0\.0\.4/);
  const lines = body.split('\n');
  for (const line of [
    'xenblk_nbd_requests_total{vbd="xvda",command="read"} 2',
    'xenblk_nbd_requests_total{vbd="xvda",command="write"} 2',
    'xenblk_nbd_bytes_total{vbd="xvda",direction="write"} 8192',
    'xenblk_nbd_errors_total{vbd="xvda",error="EINVAL"} 1',
    'xenblk_nbd_request_duration_seconds_count{vbd="xvda",command="flush"} 1',
    'xenblk_nbd_clients{vbd="xvda"} 1',
    'xenblk_nbd_ring_slots_used{vbd="xvda"} 0',
  ]) {
    t.ok(lines.includes(line), line);
  }
  const requests = /^xenblk_nbd_ring_requests_total\{vbd="xvda"\} (\d+)$/m.exec(body)?.[1];
  t.ok(Number(requests) >= 4, `${requests} requests on the ring`);
  await client.disconnect();
});

void t.test('the other addresses', async (t) => {
  const { place } = await startMonitored(t);
  const health = await fetchText(place, '/healthz');
  t.equal(health.status, 200);
  t.strictSame(JSON.parse(health.body), { status: 'ok', vbds: [] });
  const page = await fetchText(place, '/');
  t.match(page, { status: 200, type: 'text/html; charset=utf-8', body: /^<!doctype html>/ });
  t.notMatch(page.body, /https?:\/\//, 'nothing from elsewhere');
  t.match(JSON.parse((await fetchText(place, '/status.json')).body), {
    report: { state: 'serving', vbds: [{ name: 'xvda', sizeBytes: 8 * 2 ** 20 }], clients: [] },
  });
  t.match(await fetchText(place, '/nothing'), { status: 404 });
  t.match(await fetchText(place, '/', 'POST'), { status: 405 });
  t.match(await fetchText(place, '/metrics', 'HEAD'), { status: 200, body: '' });
});

void t.test('a backend that is lost shows in the health', async (t) => {
  const { place } = await startMonitored(t, ['--simulate-faults', 'unplug=2', '--wait-for-return']);
  const deadline = Date.now() + 20_000;
  let health = await fetchText(place, '/healthz');
  while (health.status === 200 && Date.now() < deadline)
    health = await fetchText(place, '/healthz');
  t.equal(health.status, 503);
  t.strictSame(JSON.parse(health.body), { status: 'waiting', vbds: ['xvda'] });
});

void t.test('whoever watches is told each second, and left at the end', async (t) => {
  const { daemon, open, place } = await startMonitored(t);
  const client = await open();
  let samples = 0;
  let names = '';
  await watchEvents(place, (name, data) => {
    names += `${name} `;
    if (name !== 'sample') return false;
    const { sample } = JSON.parse(data) as { sample: { vbds: { requests: { read: number } }[] } };
    samples += 1;
    void client.read(0, 4096);
    return samples > 1 && (sample.vbds[0]?.requests.read ?? 0) > 0;
  });
  t.match(names, /^status sample /);
  await client.disconnect();
  const ended = watchEvents(place, () => false).catch(() => undefined);
  await daemon.stop();
  await ended;
});

void t.test('on a Unix socket', async (t) => {
  const socketPath = join(makeFolder(t), 'metrics.sock');
  await startSimulated(t, ['--metrics', socketPath, '--unix-mode', '660']);
  t.equal(statSync(socketPath).mode & 0o777, 0o660);
  t.match(await fetchText({ socketPath }, '/metrics'), { status: 200, body: /xenblk_nbd_info/ });
});

void t.test('an address that cannot be had fails at start', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  const folder = makeFolder(t);
  const serve = ['serve', '--simulate', '1M', '--unix', join(folder, 'x'), '--log-level', 'silent'];
  const inUse = await runXenblkNbd([...serve, '--metrics', `127.0.0.1:${port}`]);
  t.equal(inUse.status, 1);
  t.match(inUse.stderr, new RegExp(`^xenblk-nbd: 127.0.0.1:${port} is in use by another program`));
  t.equal(inUse.stdout, '', 'it was never ready');
  const wrong = await runXenblkNbd([...serve, '--metrics', 'nonsense']);
  t.equal(wrong.status, 2);
  t.match(wrong.stderr, /nonsense.*HOST:PORT/);
});
