// src/xen on the real device files: I/O through a vbd by hand, limits, permissions, leaks, exit.
import { deepStrictEqual, match, ok, strictEqual, throws } from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { XenStoreClient, XenStoreError } from 'xenstore-client';
import { HostError } from '../../../../src/host/index.ts';
import { viewMemory } from '../../../../src/sys/index.ts';
import { createLinuxHost, kernelDriverOf } from '../../../../src/xen/index.ts';
import { BareFrontend } from '../bare-frontend.ts';
import { run } from '../commands.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { storeRead, storeWrite } from '../store.ts';
import { createVbd, states } from '../vbd-fixture.ts';

export const realHost: readonly Scenario[] = [
  { name: 'a bare frontend writes, flushes and reads through xen-blkback', run: bareIo },
  { name: 'XenStore through /dev/xen/xenbus: watches, transactions, limits', run: xenStore },
  { name: 'requests in flight together on /dev/xen/xenbus are not mixed up', run: inFlight },
  { name: 'the limit of granted pages is told with the file and the way out', run: grantLimit },
  { name: 'a process that exits with everything open ends at once', run: exitWhileOpen },
  { name: 'device files that may not be opened, and that may', run: permissions },
];

async function bareIo(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 8 << 20 });
  const host = createLinuxHost();
  lab.cleanUp(() => host.close());
  strictEqual(kernelDriverOf(vbd.id), undefined);
  const front = await BareFrontend.connect(host, vbd);
  strictEqual(await states(vbd), '4/4');
  strictEqual(await front.store.read(`${vbd.backendPath}/sectors`), String((8 << 20) / 512));
  lab.step('connected: 4/4');

  ok(
    front.data.every((byte) => byte === 0),
    'granted pages arrive zeroed',
  );
  const firstSector = 2048;
  for (const [index] of front.data.entries())
    front.data[index] = (index * 7 + (index >> 12)) & 0xff;
  const written = front.data.slice();
  strictEqual(front.write(firstSector, 11), 0);
  strictEqual(front.flush(), 0);
  const onDisk = readFileSync(vbd.file)
    .subarray(firstSector * 512)
    .subarray(0, written.length);
  ok(Buffer.from(written).equals(onDisk), 'the backing file holds what was written');
  lab.step('44 KiB written and flushed: the backing file holds them byte for byte');

  front.data.fill(0);
  strictEqual(front.read(firstSector, 11), 0);
  ok(Buffer.from(written).equals(front.data), 'the same bytes are read');
  for (let round = 0; round < 200; round++) strictEqual(front.read((round * 8) % 8192, 1), 0);
  lab.step('read back; 200 more requests, six times round the ring');

  strictEqual(front.read((8 << 20) / 512, 1), -1);
  lab.step('a read past the end is answered -1');
  await front.close();
  strictEqual(await states(vbd), '6/6');

  // The vbd can be had again, on the same host: 6/6, then 1, and blkback offers it anew.
  await storeWrite({ [`${vbd.frontendPath}/state`]: '1' });
  const store = new XenStoreClient(await host.openXenStore());
  await store.waitFor(`${vbd.backendPath}/state`, (value) => value === '2', { timeoutMs: 10_000 });
  await store.close();
  const again = await BareFrontend.connect(host, vbd);
  strictEqual(again.read(firstSector, 11), 0);
  ok(Buffer.from(written).equals(again.data), 'the second connection reads the same bytes');
  await again.close();
  lab.step('closed at 6/6, connected a second time, read the same, closed');
}

async function xenStore(lab: Lab): Promise<void> {
  const host = createLinuxHost();
  lab.cleanUp(() => host.close());
  const store = new XenStoreClient(await host.openXenStore());
  strictEqual(await store.read('domid'), '0');
  const root = '/local/domain/0/data/lab';
  lab.cleanUp(() => run('xenstore-rm', root).then(() => {}));

  let events = 0;
  await storeWrite({ [`${root}/key`]: 'one' });
  const watch = await store.watch(`${root}/key`, () => void events++);
  strictEqual(await storeRead(`${root}/key`), 'one');
  const changed = store.waitFor(`${root}/key`, (value) => value === 'two', { timeoutMs: 10_000 });
  await storeWrite({ [`${root}/key`]: 'two' });
  strictEqual(await changed, 'two');
  ok(events >= 2, `the watch fired at once and at the change: ${events}`);
  await watch.close();
  lab.step(`a watch fired ${events} times`);

  let attempts = 0;
  await store.transaction(async (transaction) => {
    attempts++;
    const value = await transaction.read(`${root}/key`);
    if (attempts === 1) await storeWrite({ [`${root}/key`]: 'in between' });
    await transaction.write(`${root}/key`, `${value}, then ours`);
  });
  strictEqual(attempts, 2);
  strictEqual(await storeRead(`${root}/key`), 'in between, then ours');
  lab.step('a transaction met a conflict and was repeated');

  const path = `${root}/key`;
  const longest = 4080 - path.length - 1;
  // xenstored's own quota for a value is smaller than the device's limit for a message.
  for (const length of [longest + 1, longest]) {
    const code = await store.write(path, 'x'.repeat(length)).then(
      () => 'ok',
      (error: unknown) => (error instanceof XenStoreError ? error.code : String(error)),
    );
    lab.step(`a message with ${length - longest + 4080} bytes of payload: ${code}`);
    ok(length > longest ? code === 'E2BIG' : code === 'ok' || code === 'ENOSPC', code);
  }
  const names = Array.from({ length: 300 }, (_, index) => `a-rather-long-name-of-a-child-${index}`);
  for (const name of names) await store.write(`${root}/many/${name}`, '');
  deepStrictEqual((await store.directory(`${root}/many`)).sort(), names.sort());
  lab.step('300 children, 10 KiB of names, were listed in parts');
  await store.close();
}

/**
 * Linux keeps only a pointer into one buffer of the open file for each request it has not sent yet.
 * With several in flight, 1 to 10 % of them named the wrong node before the transport knew of it.
 */
async function inFlight(lab: Lab): Promise<void> {
  const host = createLinuxHost();
  lab.cleanUp(() => host.close());
  const root = '/local/domain/0/data/lab-in-flight';
  lab.cleanUp(() => run('xenstore-rm', root).then(() => {}));
  const stores = await Promise.all(
    [0, 1].map(async () => new XenStoreClient(await host.openXenStore())),
  );
  // Names of one length and of several: mixed up they are a wrong value or no node.
  const names = ['aa', 'bb', 'cc', 'dddd', 'eeeeeee', 'ffffffffffff'];
  for (const name of names) await stores[0]?.write(`${root}/${name}`, name);
  const rounds = 100;
  for (let round = 0; round < rounds; round++) {
    const reads = stores.flatMap((store) =>
      names.map(async (name) => strictEqual(await store.read(`${root}/${name}`), name)),
    );
    const writes = stores.map((store, index) => store.write(`${root}/w-${index}`, String(round)));
    await Promise.all([...reads, ...writes]);
  }
  for (const index of [0, 1])
    strictEqual(await storeRead(`${root}/w-${index}`), String(rounds - 1));
  deepStrictEqual(await stores[0]?.directory(root), [...names, 'w-0', 'w-1'].sort());
  for (const store of stores) await store.close();
  lab.step(
    `${rounds} rounds of 12 reads and 2 writes at once on 2 connections: all as they should`,
  );
}

async function grantLimit(lab: Lab): Promise<void> {
  const limitFile = '/sys/module/xen_gntalloc/parameters/limit';
  const host = createLinuxHost();
  lab.cleanUp(() => host.close());
  const { limitPages, source } = host.grantBudget();
  strictEqual(source, limitFile);
  strictEqual(limitPages, Number(readFileSync(limitFile, 'utf8')));

  const all = host.grantPages(0, limitPages, 'read-only');
  strictEqual(new Set(all.grefs).size, limitPages);
  let message = '';
  throws(
    () => host.grantPages(0, 1, 'read-write'),
    (error: unknown) => {
      message = error instanceof HostError ? error.message : '';
      return error instanceof HostError && error.code === 'LIMIT';
    },
  );
  ok(message.includes(`echo 2048 > ${limitFile}`), message);
  lab.step(message);
  const bytes = new Uint8Array(viewMemory(all.address, 4096 * limitPages)).fill(1);
  all.retire();
  ok(bytes.every((byte) => byte === 1));
  host.grantPages(0, limitPages, 'read-write').revoke();
  lab.step(`all ${limitPages} pages were given back, their bytes kept, and granted once more`);
}

async function exitWhileOpen(lab: Lab): Promise<void> {
  const startMs = Date.now();
  const { code, stdout } = await runProgram('exit-while-open');
  strictEqual(stdout, 'domid 0, 2 pages, port true\n');
  strictEqual(code, 7);
  lab.step(`exit code 7 after ${Date.now() - startMs} ms, start of Node included`);
}

async function permissions(lab: Lab): Promise<void> {
  const devices = ['gntalloc', 'evtchn', 'xenbus'];
  const refused = await runProgram('open-devices', 1000);
  lab.step(refused.stdout.trimEnd());
  const lines = refused.stdout.trimEnd().split('\n');
  strictEqual(lines.length, 3);
  for (const [index, device] of devices.entries()) {
    match(lines[index] ?? '', new RegExp(`^${device}: NO_PERMISSION: .*/dev/xen/${device} .*udev`));
  }

  for (const device of devices) chmodSync(`/dev/xen/${device}`, 0o666);
  lab.cleanUp(() => {
    for (const device of devices) chmodSync(`/dev/xen/${device}`, 0o600);
  });
  const allowed = await runProgram('open-devices', 1000);
  strictEqual(allowed.stdout, 'gntalloc: ok\nevtchn: ok\nxenbus: ok\n');
  lab.step('after chmod an ordinary user could open all three');

  await run('rmmod', 'xen-gntalloc');
  lab.cleanUp(() => run('modprobe', 'xen-gntalloc').then(() => {}));
  const missing = await runProgram('open-devices');
  lab.step(missing.stdout.split('\n')[0] ?? '');
  match(missing.stdout, /^gntalloc: NO_DEVICE: .*modprobe xen-gntalloc/);
}

function runProgram(name: string, uid = 0): Promise<{ code: number | null; stdout: string }> {
  const file = fileURLToPath(new URL(`../programs/${name}.js`, import.meta.url));
  return new Promise((resolve) => {
    const options = { uid, gid: uid, timeout: 30_000 };
    const child = execFile(process.execPath, [file], options, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout: stdout + stderr });
    });
  });
}
