// Goal: the daemon as a whole, as one client after another sees it. Each test starts the real
// command on a simulated disk and speaks NBD to it with the independent client of test/support.
import { existsSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, runXenblkNbd } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, Errno, goData, Opt, requestHeader } from '../support/nbd-wire.ts';
import { readThreadPolicy } from '../support/proc-stat.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { MIB, serveFile } from '../support/served-file.ts';
import { logged } from './support/simulated.ts';

void t.test('what is written is in the file and comes back', async (t) => {
  const { daemon, file, open } = await serveFile(t, 8 * MIB);
  const random = new SeededRandom(runSeed());
  const client = await open();
  const model = Buffer.alloc(8 * MIB);
  for (let i = 0; i < 200; i++) {
    const length = 1 + random.below(random.pick([16, 600, 5000, 300_000, 2_000_000]));
    const offset = random.below(8 * MIB - length);
    if (random.chance(0.7)) {
      const bytes = random.bytes(length);
      bytes.copy(model, offset);
      t.equal((await client.write(offset, bytes)).error, Errno.OK);
    } else if (random.chance(0.5)) {
      model.fill(0, offset, offset + length);
      t.equal((await client.writeZeroes(offset, length)).error, Errno.OK);
    } else {
      const bytes = await client.readOk(offset, length);
      t.ok(bytes.equals(model.subarray(offset, offset + length)), `read of ${length} at ${offset}`);
    }
  }
  t.equal((await client.flush()).error, Errno.OK);
  t.ok(readFileSync(file).equals(model), 'the file holds exactly what was written');
  await client.disconnect();
  await daemon.stop();
});

void t.test('many requests in flight, of all sizes, on several connections', async (t) => {
  const { daemon, open } = await serveFile(t, 16 * MIB);
  const random = new SeededRandom(runSeed());
  const clients = await Promise.all([open(), open(), open(), open()]);
  const share = 4 * MIB;
  await Promise.all(
    clients.map(async (client, index) => {
      const model = random.bytes(share);
      const base = index * share;
      const writes = [];
      for (let at = 0; at < share; ) {
        const length = Math.min(share - at, 1 + random.below(200_000));
        writes.push(client.write(base + at, model.subarray(at, at + length)));
        at += length;
      }
      for (const { error } of await Promise.all(writes)) t.equal(error, Errno.OK);
      const reads = [];
      for (let at = 0; at < share; at += 65_537) {
        reads.push(client.readOk(base + at, Math.min(65_537, share - at)));
      }
      t.ok(Buffer.concat(await Promise.all(reads)).equals(model), `client ${index}`);
    }),
  );
  // A read larger than the page pool, and one as large as any may be.
  const [client] = clients;
  const all = await client?.readOk(0, 16 * MIB);
  t.equal(all?.length, 16 * MIB);
  for (const one of clients) await one.disconnect();
  await daemon.stop();
});

void t.test('two clients write odd ranges of one sector at once', async (t) => {
  const { daemon, file, open } = await serveFile(t, MIB);
  const [one, other] = [await open(), await open()];
  for (let round = 1; round <= 100; round++) {
    const replies = await Promise.all([
      one.write(1, Buffer.alloc(100, round)),
      other.write(101, Buffer.alloc(300, 255 - round)),
      one.write(401, Buffer.alloc(700, round + 1)),
    ]);
    t.ok(replies.every(({ error }) => error === Errno.OK));
    const bytes = await one.readOk(0, 1101);
    const expected = Buffer.concat([
      Buffer.alloc(1),
      Buffer.alloc(100, round),
      Buffer.alloc(300, 255 - round),
      Buffer.alloc(700, round + 1),
    ]);
    if (!bytes.equals(expected)) t.fail(`round ${round}: an update was lost`);
  }
  await one.disconnect();
  await other.disconnect();
  await daemon.stop();
  t.equal(readFileSync(file)[0], 0);
});

void t.test('refusals have the right codes, and the connection lives on', async (t) => {
  const { daemon, open } = await serveFile(t, MIB);
  const client = await open();
  t.equal((await client.read(MIB, 1)).error, Errno.EINVAL);
  t.equal((await client.read(MIB - 1, 2)).error, Errno.EINVAL);
  t.equal((await client.write(MIB - 1, Buffer.alloc(2))).error, Errno.ENOSPC);
  t.equal((await client.writeZeroes(MIB, 1)).error, Errno.ENOSPC);
  t.equal((await client.read(2n ** 64n - 1n, 2)).error, Errno.EINVAL);
  t.equal((await client.request({ type: 99 })).error, Errno.EINVAL);
  t.equal((await client.read(0, 512, 0x8000)).error, Errno.EINVAL);
  t.equal((await client.read(0, 0)).error, Errno.OK);
  t.equal((await client.write(0, Buffer.alloc(0))).error, Errno.OK);
  t.equal((await client.trim(1, 3)).error, Errno.OK);
  t.equal((await client.write(0, Buffer.alloc(512, 7), 1)).error, Errno.OK, 'FUA');
  t.equal((await client.readOk(0, 1))[0], 7);
  await client.disconnect();
  await daemon.stop();
});

void t.test('--read-only: EPERM, and the payload is drained', async (t) => {
  const { daemon, file, open, address } = await serveFile(t, MIB, ['--read-only']);
  const { client, description } = await NbdClient.open(address);
  t.equal(description.flags & 2, 2, 'announced');
  t.equal((await client.write(0, Buffer.alloc(300_000, 1))).error, Errno.EPERM);
  t.equal((await client.writeZeroes(0, 512)).error, Errno.EPERM);
  t.equal((await client.trim(0, 4096)).error, Errno.EPERM);
  t.equal((await client.flush()).error, Errno.OK);
  t.equal((await (await open()).readOk(0, 512)).length, 512);
  await client.disconnect();
  await daemon.stop();
  t.ok(readFileSync(file).equals(Buffer.alloc(MIB)));
});

void t.test('requests that come in one piece with the handshake are served', async (t) => {
  const { daemon, address } = await serveFile(t, MIB);
  const client = await NbdClient.connect(address);
  await client.bytes.receive(18);
  const go = goData('', []);
  const option = Buffer.alloc(16);
  option.write('IHAVEOPT', 'latin1');
  option.writeUInt32BE(Opt.GO, 8);
  option.writeUInt32BE(go.length, 12);
  client.bytes.send(
    Buffer.concat([
      Buffer.from([0, 0, 0, 3]),
      option,
      go,
      requestHeader({ type: Cmd.WRITE, offset: 0, payload: Buffer.alloc(5000, 9) }, 1n),
      Buffer.alloc(5000, 9),
      requestHeader({ type: Cmd.READ, offset: 4000, length: 2000 }, 2n),
    ]),
  );
  // INFO_EXPORT (20 + 12), ACK (20), then the two replies: the write's is not waited for.
  const bytes = await client.bytes.receive(32 + 20 + 16 + 16 + 2000);
  t.equal(bytes.readUInt32BE(52), 0x67446698);
  client.bytes.destroy();
  await daemon.stop();
});

void t.test('a client may vanish at any byte of a request', async (t) => {
  const { daemon, open } = await serveFile(t, MIB);
  const bytes = Buffer.concat([
    requestHeader({ type: Cmd.WRITE, offset: 100, payload: Buffer.alloc(70_000, 1) }, 1n),
    Buffer.alloc(70_000, 1),
    requestHeader({ type: Cmd.READ, offset: 0, length: 70_000 }, 2n),
  ]);
  const cuts = [...Array(29).keys(), 100, 5000, 69_999, 70_000, 70_027, 70_028, 70_040, 70_056];
  for (const cut of cuts) {
    const client = await open();
    client.bytes.send(bytes.subarray(0, cut));
    if (cut % 2 === 0) client.bytes.endSending();
    client.bytes.destroy();
  }
  const client = await open();
  t.equal((await client.readOk(0, MIB)).length, MIB, 'all pages and slots are still there');
  const many = Array.from({ length: 200 }, (_, i) => client.write(i * 512, Buffer.alloc(512, 3)));
  t.ok((await Promise.all(many)).every(({ error }) => error === Errno.OK));
  await client.disconnect();
  await daemon.stop();
});

void t.test('garbage costs its sender the connection, and nobody else anything', async (t) => {
  const { daemon, open, address } = await serveFile(t, MIB);
  const good = await open();
  const random = new SeededRandom(runSeed());
  for (let i = 0; i < 20; i++) {
    const bad = i % 2 === 0 ? await NbdClient.connect(address) : await open();
    bad.bytes.send(random.bytes(1 + random.below(5000)));
    bad.bytes.endSending();
    await bad.bytes.receiveEnd();
    t.equal((await good.readOk(0, 512)).length, 512);
  }
  await good.disconnect();
  await daemon.stop();
});

void t.test('SIGTERM answers what is in progress and leaves nothing behind', async (t) => {
  const { daemon, open, address, folder } = await serveFile(t, 16 * MIB, [
    '--pid-file',
    join(tmpdir(), `xenblk-nbd-test-${process.pid}.pid`),
  ]);
  const client = await open();
  const writes = Array.from({ length: 100 }, (_, i) =>
    client.write(i * 65_536, Buffer.alloc(65_536, 5)).catch(() => undefined),
  );
  await daemon.stop();
  const replies = await Promise.all(writes);
  for (const reply of replies) t.ok(reply === undefined || reply.error === Errno.OK);
  t.notOk(existsSync(address.path), 'the socket is gone');
  t.notOk(existsSync(join(tmpdir(), `xenblk-nbd-test-${process.pid}.pid`)), 'the pid file is gone');
  t.ok(existsSync(join(folder, 'disk.img')));
});

void t.test('SIGTERM under load is no error to a client that asks again elsewhere', async (t) => {
  const { daemon, open } = await serveFile(t, 16 * MIB);
  const clients = [await open(), await open()];
  let answeredCount = 0;
  const load = clients.map(async (client) => {
    for (;;) {
      const reply = await client.write(0, Buffer.alloc(4096, 1)).catch(() => undefined);
      if (reply === undefined) return;
      t.equal(reply.error, Errno.OK);
      answeredCount += 1;
    }
  });
  await eventually('the load runs', 30_000, () => answeredCount > 100 || undefined);
  await daemon.stop();
  await Promise.all(load);
  const left = logged(daemon.log, 'client-left').map(({ reason }) => reason);
  t.strictSame(left, ['server stops', 'server stops']);
});

void t.test('a socket in use is refused, a stale one is replaced', async (t) => {
  const { daemon, address } = await serveFile(t, MIB);
  const second = await runXenblkNbd(['serve', '--simulate', '1M', '--unix', address.path]);
  t.equal(second.status, 1);
  t.match(second.stderr, /in use by a running server/);
  t.equal(second.stderr.trim().split('\n').length, 1, 'one line');
  daemon.kill('SIGKILL');
  await daemon.waitForEnd();
  t.ok(existsSync(address.path), 'kill -9 leaves the socket');
  const third = await Daemon.start(['--simulate', '1M', '--unix', address.path]);
  await (await NbdClient.open(address)).client.disconnect();
  await third.stop();
});

void t.test('the threads carry their names, and do not interrupt others', async (t) => {
  const { daemon } = await serveFile(t, MIB);
  const SCHED_BATCH = 3;
  for (const name of ['lane-0', 'sim-blkback-0']) {
    t.equal(readThreadPolicy(daemon.pid, name), SCHED_BATCH, name);
  }
  await daemon.stop();
});
