// Goal: clients are told what the disk is: its size up to the largest there is, the block that
// suits it, and how writes become stable; and a guest that may grant few pages serves it as well.
import t from 'tap';
import { NbdClient } from '../support/nbd-client.ts';
import { Errno, Flag } from '../support/nbd-wire.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { startInProcess } from './support/in-process.ts';
import { ShadowDisk } from './support/shadow-disk.ts';
import { logged, startSimulated } from './support/simulated.ts';

const MIB = 2 ** 20;

void t.test('sizes around 2^32 sectors, and the largest', async (t) => {
  for (const sizeBytes of [2 ** 41 - 512, 2 ** 41, 2 ** 41 + 512, 2 ** 53 - 512]) {
    const { vbds, open, close } = await startInProcess(t, { disks: [{ vbd: 'xvda', sizeBytes }] });
    t.equal(vbds.devices[0]?.exportEntry.sizeBytes, sizeBytes);
    const client = await open();
    const at = sizeBytes - 500;
    const last = Buffer.alloc(500, 0x5a);
    t.equal((await client.write(at, last)).error, Errno.OK);
    t.ok((await client.readOk(at, 500)).equals(last), 'its last bytes');
    // Where they would be if sectors were counted in 32 bits.
    const wrapped = at % 2 ** 41;
    if (wrapped !== at) t.ok((await client.readOk(wrapped, 500)).every((byte) => byte === 0));
    t.equal((await client.write(at, Buffer.alloc(501))).error, Errno.ENOSPC);
    t.equal((await client.read(at, 501)).error, Errno.EINVAL);
    await client.disconnect();
    await close();
  }
});

void t.test('how writes become stable', async (t) => {
  for (const [features, isWrittenThrough] of [
    ['discard', true],
    ['read-only', false],
    ['barrier', false],
    ['flush', false],
  ] as const) {
    const { daemon, socket } = await startSimulated(t, ['--simulate-features', features]);
    const { client, description } = await NbdClient.open({ path: socket });
    t.ok((description.flags & Flag.SEND_FLUSH) !== 0, 'a flush is true in any case');
    t.equal(/written through/.test(description.description ?? ''), isWrittenThrough, features);
    t.equal((await client.flush()).error, Errno.OK);
    await client.disconnect();
    await daemon.stop();
    t.equal(logged(daemon.log, 'write-through').length, isWrittenThrough ? 1 : 0);
  }
});

void t.test('the block that suits it', async (t) => {
  const KIB = 1024;
  for (const [physical, preferred, requestBytesMax] of [
    ['512', 4096, 64 * MIB],
    ['4096', 4096, 64 * MIB],
    ['16384', 16 * KIB, 64 * MIB],
    ['33554432', 32 * MIB, 64 * MIB],
    ['67108864', 4096, 64 * MIB],
    ['3000', 4096, 64 * MIB],
    ['65536', 64 * KIB, 64 * KIB],
    ['131072', 4096, 64 * KIB],
  ] as const) {
    const keyOverrides = { 'physical-sector-size': physical };
    const disks = [{ vbd: 'xvda', sizeBytes: MIB, keyOverrides }];
    const { vbds, close } = await startInProcess(t, { disks }, {}, requestBytesMax);
    t.equal(vbds.devices[0]?.exportEntry.preferredBlockBytes, preferred, physical);
    await close();
  }
});

void t.test('few pages that may be granted', async (t) => {
  const disks = [{ vbd: 'xvda', sizeBytes: 4 * MIB }];
  // A ring of one page, 16 zero pages, 16 for lists of segments and 24 for data: not one less.
  for (const grantLimitPages of [84, 83, 58, 57]) {
    const { open, logged: lines, close } = await startInProcess(t, { disks, grantLimitPages });
    const [attached] = lines('attached');
    t.ok(Number(attached?.details['grantedPages']) <= grantLimitPages, 'it says what it took');
    const seed = runSeed();
    const clients = [await open(), await open()];
    const shadows = clients.map(
      (client, index) =>
        new ShadowDisk(client, new SeededRandom(seed + index), 2 * index * MIB, 2 * MIB),
    );
    let isOver = false;
    const working = Promise.all(shadows.map((disk) => disk.work(() => isOver)));
    while (shadows.some(({ requestCount }) => requestCount < 200)) await clients[0]?.flush();
    isOver = true;
    await working;
    for (const disk of shadows) await disk.verify();
    for (const client of clients) await client.disconnect();
    await close();
  }
  await t.rejects(startInProcess(t, { disks, grantLimitPages: 56 }), {
    message: /too few pages may be granted: .* raise the limit in/,
  });
});
