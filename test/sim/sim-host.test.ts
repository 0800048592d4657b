/**
 * Goal: the simulated host as a front end meets it, from the directories that the toolstack makes
 * to data in the file, done by hand over the wire. Method: requests typed byte by byte, checked
 * against the file and against XenStore; at the end nothing may be held.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { XenStoreClient } from 'xenstore-client';
import {
  createSimulatedHost,
  defaultFeatures,
  NO_FEATURES,
  type SimulatedHost,
} from '../../src/sim/index.ts';
import { readThreadNames } from '../support/proc-stat.ts';
import { bytesOf, connectByHand, HandFront } from './hand-front.ts';

const directory = mkdtempSync(join(tmpdir(), 'sim-host-'));
t.teardown(() => rmSync(directory, { recursive: true }));

async function closeByHand(
  host: SimulatedHost,
  { store, front, backend }: Awaited<ReturnType<typeof connectByHand>>,
): Promise<void> {
  await store.write('device/vbd/51712/state', '5');
  await store.waitFor(`${backend}/state`, (state) => state === '5', { timeoutMs: 30_000 });
  await store.write('device/vbd/51712/state', '6');
  await store.waitFor(`${backend}/state`, (state) => state === '6', { timeoutMs: 30_000 });
  front.pages.revoke();
  host.unbindEventChannel(front.handle);
  await store.close();
}

void t.test('a file is read and written through the ring', async (t) => {
  const file = join(directory, 'disk.img');
  const content = new Uint8Array(64 * 1024);
  for (let index = 0; index < content.length; index++) content[index] = (index * 7) & 0xff;
  writeFileSync(file, content);
  const log: string[] = [];
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvda', file }],
    log: (line) => log.push(line),
  });
  const connection = await connectByHand(host, 51712, { 'feature-persistent': '1' });
  const { store, front, backend } = connection;
  t.equal(backend, '/local/domain/0/backend/vbd/1/51712');
  t.equal(await store.read(`${backend}/sectors`), '128');
  t.equal(await store.read(`${backend}/sector-size`), '512');
  t.equal(await store.read(`${backend}/info`), '0');
  t.equal(await store.read(`${backend}/mode`), 'w');
  t.equal(await store.read(`${backend}/params`), file);
  t.equal(await store.read(`${backend}/feature-flush-cache`), '1');
  t.equal(await store.read(`${backend}/feature-persistent`), '1');
  t.equal(await store.read(`${backend}/max-ring-page-order`), '4');
  t.equal(await store.read(`${backend}/feature-max-indirect-segments`), '256');

  const data = host.grantPages(0, 4, 'read-write');
  const bytes = bytesOf(data);
  const gref = (page: number): number => data.grefs[page] ?? 0;
  // READ of 2 pages from sector 8, and of one sector into the middle of the third page.
  front.putDirect(0, 7, 8, [
    { gref: gref(0), first: 0, last: 7 },
    { gref: gref(1), first: 0, last: 7 },
  ]);
  front.putDirect(0, 9, 1, [{ gref: gref(2), first: 3, last: 3 }]);
  front.push();
  t.same(await front.wait(2), [
    { id: 7, operation: 0, status: 0 },
    { id: 9, operation: 0, status: 0 },
  ]);
  t.ok(Buffer.from(bytes.subarray(0, 8192)).equals(Buffer.from(content.subarray(4096, 12288))));
  t.ok(
    Buffer.from(bytes.subarray(8192 + 1536, 8192 + 2048)).equals(
      Buffer.from(content.subarray(512, 1024)),
    ),
  );
  t.equal(bytes[8192 + 1535], 0, 'the byte before the segment is untouched');
  t.equal(bytes[8192 + 2048], 0, 'and the byte after it');

  bytes.fill(0xa5, 3 * 4096);
  front.putDirect(1, 1, 64, [{ gref: gref(3), first: 0, last: 7 }]);
  front.push();
  t.same(await front.wait(1), [{ id: 1, operation: 1, status: 0 }]);
  front.put(3, 0, 2, 0);
  front.push();
  t.same(await front.wait(1), [{ id: 2, operation: 3, status: 0 }]);
  const after = readFileSync(file);
  t.ok(after.subarray(32768, 36864).every((byte) => byte === 0xa5));
  t.ok(after.subarray(0, 32768).equals(Buffer.from(content.subarray(0, 32768))));
  t.equal(after.length, content.length);

  // DISCARD of sectors 64..71: flag, id and sector as in the others, nr_sectors at 24.
  const at = front.put(5, 0, 3, 64);
  front.view.setUint32(at + 24, 8, true);
  front.push();
  t.same(await front.wait(1), [{ id: 3, operation: 5, status: 0 }]);
  t.ok(
    readFileSync(file)
      .subarray(32768, 36864)
      .every((byte) => byte === 0),
  );

  const names = readThreadNames(process.pid);
  t.ok(names.includes('sim-blkback-0'), `a thread is called sim-blkback-0: ${names.join(' ')}`);

  const stats = await host.control.stats();
  t.equal(stats.requests, 5);
  t.equal(stats.readBytes, 8192 + 512);
  t.equal(stats.writtenBytes, 4096);
  t.equal(host.control.leaks().mappings, 5, 'four pages are kept mapped, and the ring');

  await closeByHand(host, connection);
  data.revoke();
  t.same(host.control.leaks(), {
    grantedPages: 0,
    deferredPages: 0,
    mappings: 0,
    openEventChannels: 0,
    storeConnections: 0,
    kernelBugs: 0,
  });
  await host.close();
  t.ok(log.some((line) => line.includes('4 (Connected)')));
});

void t.test('the same disk can be attached again after a clean close', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: '51712', sizeBytes: 1 << 20 }] });
  for (let round = 0; round < 3; round++) {
    const connection = await connectByHand(host, 51712);
    const page = host.grantPages(0, 1, 'read-write');
    connection.front.putDirect(0, round, 0, [{ gref: page.grefs[0] ?? 0, first: 0, last: 7 }]);
    connection.front.push();
    t.same(await connection.front.wait(1), [{ id: round, operation: 0, status: 0 }]);
    await closeByHand(host, connection);
    page.revoke();
    const client = new XenStoreClient(await host.openXenStore());
    await client.write('device/vbd/51712/state', '1');
    await client.close();
  }
  t.same(host.control.leaks().grantedPages, 0);
  await host.close();
});

void t.test('what a front end asks for must be on offer', async (t) => {
  const cases: [name: string, keys: Record<string, string>, error: string | RegExp][] = [
    [
      'queues',
      { 'multi-queue-num-queues': '3' },
      '22 guest requested 3 queues, exceeding the maximum of 2.',
    ],
    ['order', { 'ring-page-order': '2' }, '22 requested ring page order 2 exceed max:1'],
    [
      'order 0',
      { 'ring-page-order': '0' },
      '22 reading /local/domain/1/device/vbd/51712/ring-ref0',
    ],
    ['gref', { 'ring-ref': '4000' }, /^22 mapping ring-ref port \d+$/],
  ];
  for (const [name, keys, error] of cases) {
    const host = await createSimulatedHost({
      disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }],
      features: { ...defaultFeatures(), queues: 2, ringPageOrder: 1 },
    });
    const store = new XenStoreClient(await host.openXenStore());
    const front = new HandFront(host);
    await store.write('device/vbd/51712/ring-ref', String(front.pages.grefs[0]));
    await store.write('device/vbd/51712/event-channel', String(front.handle.port));
    for (const [key, value] of Object.entries(keys)) {
      await store.write(`device/vbd/51712/${key}`, value);
    }
    await store.write('device/vbd/51712/state', '3');
    const backend = '/local/domain/0/backend/vbd/1/51712';
    await store.waitFor(`${backend}/state`, (state) => state === '5', { timeoutMs: 30_000 });
    await store.close();
    const text = host.control.xenstored.tree
      .dump('/local/domain/0/error')
      .get('/local/domain/0/error/backend/vbd/1/51712/error');
    t.match(text, error, name);
    t.equal(host.control.leaks().mappings, 0);
    await host.close();
  }
});

void t.test('a read-only disk refuses writes, and says so', async (t) => {
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20, readOnly: true }],
  });
  const { store, front, backend } = await connectByHand(host, 51712);
  t.equal(await store.read(`${backend}/info`), '4');
  t.equal(await store.read(`${backend}/mode`), 'r');
  t.equal(await store.read(`${backend}/feature-discard`), '0');
  const page = host.grantPages(0, 1, 'read-write');
  front.putDirect(1, 1, 0, [{ gref: page.grefs[0] ?? 0, first: 0, last: 7 }]);
  front.putDirect(0, 2, 0, [{ gref: page.grefs[0] ?? 0, first: 0, last: 7 }]);
  front.push();
  t.same(await front.wait(2), [
    { id: 1, operation: 1, status: -1 },
    { id: 2, operation: 0, status: 0 },
  ]);
  await store.close();
  await host.close();
});

void t.test('a plain back end offers nothing', async (t) => {
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }],
    features: NO_FEATURES,
  });
  const { store, front, backend } = await connectByHand(host, 51712);
  t.equal(await store.read(`${backend}/max-ring-page-order`), '0');
  t.equal(await store.read(`${backend}/feature-flush-cache`), '0');
  front.put(3, 0, 1, 0);
  front.put(2, 0, 2, 0);
  front.put(5, 0, 3, 0);
  front.put(6, 0, 4, 0);
  front.push();
  t.same(
    (await front.wait(4)).map(({ status }) => status),
    [-2, -2, -2, -2],
    'flush, barrier, discard and indirect are unknown',
  );
  await store.close();
  await host.close();
});

void t.test('disks that cannot be are refused with one sentence', async (t) => {
  const odd = join(directory, 'odd.img');
  writeFileSync(odd, new Uint8Array(1000));
  const empty = join(directory, 'empty.img');
  writeFileSync(empty, '');
  const cases: [string, RegExp][] = [
    [join(directory, 'missing.img'), /does not exist; create it first/],
    [odd, /1000 bytes long, which is not a multiple of 512/],
    [empty, /0 bytes long, and a disk needs at least one sector/],
    [directory, /is a directory/],
  ];
  for (const [file, message] of cases) {
    await t.rejects(createSimulatedHost({ disks: [{ vbd: 'xvda', file }] }), { message });
  }
  await t.rejects(createSimulatedHost({ disks: [{ vbd: 'nothing', sizeBytes: 512 }] }), {
    name: 'DeviceNameError',
  });
});

void t.test('an unfinished front end does not keep a host from closing', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }] });
  const front = new HandFront(host);
  t.ok(front.handle.port > 0);
  await host.close();
  await t.rejects(host.openXenStore(), /is closed/);
});

void t.test('several queues of several pages, each on its own channel', async (t) => {
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }],
    features: { ...defaultFeatures(), queues: 3 },
  });
  const store = new XenStoreClient(await host.openXenStore());
  const home = 'device/vbd/51712';
  const backend = await store.read(`${home}/backend`);
  t.equal(await store.read(`${backend}/multi-queue-max-queues`), '3');
  const queues = Array.from({ length: 3 }, () => new HandFront(host));
  const second = host.grantPages(0, 3, 'read-write');
  await store.write(`${home}/multi-queue-num-queues`, '3');
  await store.write(`${home}/ring-page-order`, '1');
  await store.write(`${home}/protocol`, 'x86_64-abi');
  for (const [index, queue] of queues.entries()) {
    await store.write(`${home}/queue-${index}/ring-ref0`, String(queue.pages.grefs[0]));
    await store.write(`${home}/queue-${index}/ring-ref1`, String(second.grefs[index]));
    await store.write(`${home}/queue-${index}/event-channel`, String(queue.handle.port));
  }
  await store.write(`${home}/state`, '3');
  await store.waitFor(`${backend}/state`, (state) => state === '4', { timeoutMs: 30_000 });
  await store.write(`${home}/state`, '4');
  t.equal(host.control.leaks().mappings, 6);
  const page = host.grantPages(0, 1, 'read-write').grefs[0] ?? 0;
  for (const queue of queues) await queue.open();
  // 64 slots in two pages: slot 36 begins the second one. Requests 0..35 fill the first.
  for (const [index, queue] of queues.entries()) {
    for (let id = 0; id < 30; id++) {
      queue.putDirect(0, id + index * 100, id * 8, [{ gref: page, first: 0, last: 0 }]);
    }
    queue.push();
  }
  for (const [index, queue] of queues.entries()) {
    const responses = await queue.wait(30);
    t.ok(responses.every(({ status }) => status === 0));
    t.equal(responses[29]?.id, 29 + index * 100);
  }
  await store.write(`${home}/state`, '6');
  await store.waitFor(`${backend}/state`, (state) => state === '6', { timeoutMs: 30_000 });
  t.equal(host.control.leaks().mappings, 0);
  await store.close();
  await host.close();
});

void t.test('hosts leave no descriptors, threads or mappings behind', async (t) => {
  const file = join(directory, 'leak.img');
  writeFileSync(file, new Uint8Array(1 << 20));
  const count = (): Record<string, number> => ({
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
  });
  const mappings = (): number =>
    readFileSync('/proc/self/maps', 'utf8')
      .split('\n')
      .filter((line) => line.includes('xen-grants')).length;
  const run = async (): Promise<void> => {
    const host = await createSimulatedHost({
      disks: [
        { vbd: 'xvda', file },
        { vbd: 'xvdb', sizeBytes: 1 << 20 },
      ],
    });
    const connection = await connectByHand(host, 51712, { 'feature-persistent': '1' });
    const page = host.grantPages(0, 1, 'read-write');
    connection.front.putDirect(0, 1, 0, [{ gref: page.grefs[0] ?? 0, first: 0, last: 0 }]);
    connection.front.push();
    await connection.front.wait(1);
    await closeByHand(host, connection);
    page.revoke();
    await host.control.unplugForced('xvdb');
    await host.close();
  };
  await run();
  const before = count();
  const mappingsBefore = mappings();
  for (let round = 0; round < 5; round++) await run();
  t.same(count(), before);
  t.equal(mappings(), mappingsBefore);
});

void t.test('a process with an open host can end, by itself and by process.exit', async (t) => {
  const url = new URL('../../src/sim/index.js', import.meta.url).href;
  const start = `import { createSimulatedHost } from ${JSON.stringify(url)};
    await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1048576 }] });`;
  for (const [end, code] of [
    ['', 0],
    ['process.exit(7);', 7],
  ] as const) {
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', `${start} ${end}`], {
      timeout: 20_000,
      encoding: 'utf8',
    });
    t.equal(child.status, code, `${end} ${child.stderr}`);
  }
});
