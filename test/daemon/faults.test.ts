// Goal: the command as somebody meets it who tests a client against trouble: --simulate-faults.
import t from 'tap';
import { eventually } from '../support/eventually.ts';
import { Errno } from '../support/nbd-wire.ts';
import { describeEnd } from '../support/program.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { ShadowDisk } from './support/shadow-disk.ts';
import { logged, loggedSoon, startSimulated } from './support/simulated.ts';

const MIB = 1024 * 1024;
const seed = runSeed();
t.comment(`SEED=${seed}`);

void t.test('restart: clients see nothing of it', async (t) => {
  const faults = `restart=0.3,delay=2,seed=${seed % 1000}`;
  const { daemon, open } = await startSimulated(t, ['--simulate-faults', faults, '--queues', '2']);
  const clients = await Promise.all([open(), open(), open(), open()]);
  const disks = clients.map(
    (client, index) => new ShadowDisk(client, new SeededRandom(seed + index), index * MIB, MIB),
  );
  const isOver = (): boolean => logged(daemon.log, 'recovery-ended').length >= 5;
  await Promise.all(disks.map((disk) => disk.work(isOver)));
  for (const disk of disks) await disk.verify();
  const recoveries = logged(daemon.log, 'recovery-ended').map((line) => line['recoveries']);
  t.strictSame(recoveries.slice(0, 5), [1, 2, 3, 4, 5]);
  for (const client of clients) await client.disconnect();
  await daemon.stop();
});

void t.test('unplug: it ends, and that is no failure', async (t) => {
  const { daemon, open } = await startSimulated(t, ['--simulate-faults', 'unplug=0.5']);
  const client = await open();
  t.equal(describeEnd(await daemon.waitForEnd()), 'exit code 0');
  t.equal(logged(daemon.log, 'unplugged').length, 1);
  t.notMatch(daemon.log, /wait|trust|fail/, 'and is not spoken of as one');
  await client.bytes.receiveEnd();
});

void t.test('unplug with --wait-for-return: it stays', async (t) => {
  const { daemon, open } = await startSimulated(t, [
    '--wait-for-return',
    '--simulate-faults',
    'unplug=3',
  ]);
  await loggedSoon(daemon, 'recovery-began');
  const client = await open();
  t.ok(client, 'clients may come and wait');
  t.equal(daemon.result, undefined);
  await daemon.stop();
});

void t.test('unplug with --reconnect-timeout as well: it gives up', async (t) => {
  const { daemon } = await startSimulated(t, [
    '--wait-for-return',
    '--reconnect-timeout',
    '0.2',
    '--simulate-faults',
    'unplug=3',
  ]);
  const { status, stderr } = await daemon.waitForEnd();
  t.equal(status, 1);
  t.match(stderr, /\nxenblk-nbd: xvda[^\n]*did not connect again[^\n]*\n$/, 'the last line');
});

void t.test('resize: new clients see it', async (t) => {
  const { daemon, open } = await startSimulated(t, ['--simulate-faults', 'resize=16M@0.3']);
  // On a busy machine the disk may have grown before it was attached.
  const client = await eventually('a client that sees the new size', 30_000, async () => {
    const seen = await open();
    if ((await seen.read(15 * MIB, 512)).error === Errno.OK) return seen;
    await seen.disconnect();
    return undefined;
  });
  t.equal((await client.readOk(15 * MIB, 512)).length, 512);
  await daemon.stop();
});

void t.test('error: about that part of the requests fails, with EIO', async (t) => {
  const faults = `error=0.25,seed=${seed % 1000}`;
  const { daemon, open } = await startSimulated(t, ['--simulate-faults', faults]);
  const client = await open();
  // One at a time and apart, so that each is one request on the ring.
  const errors: number[] = [];
  for (let i = 0; i < 400; i++) {
    const at = ((i * 37) % 400) * 8192;
    const isRead = i % 2 === 0;
    const { error } = await (isRead ? client.read(at, 512) : client.write(at, Buffer.alloc(512)));
    errors.push(error);
  }
  const failed = errors.filter((error) => error !== Errno.OK);
  t.ok(
    failed.every((error) => error === Errno.EIO),
    failed.join(),
  );
  t.ok(failed.length > 60 && failed.length < 140, `${failed.length} of 400`);
  t.equal(logged(daemon.log, 'backend-broken').length, 0, 'an error is no lie');
  await client.disconnect();
  await daemon.stop();
});

void t.test('delay: requests take up to so long, and come back in any order', async (t) => {
  const faults = `delay=200,seed=${seed % 1000}`;
  const { daemon, open } = await startSimulated(t, ['--simulate-faults', faults]);
  const client = await open();
  const order: number[] = [];
  const begunMs = performance.now();
  await Promise.all(
    Array.from({ length: 16 }, async (_, i) => {
      await client.readOk(i * 65_536, 4096);
      order.push(i);
    }),
  );
  t.ok(performance.now() - begunMs > 60, 'the last of sixteen is late');
  t.notSame(
    order,
    order.toSorted((one, other) => one - other),
  );
  await client.disconnect();
  await daemon.stop();
});

void t.test('hostile: errors, and nothing worse', async (t) => {
  const faults = `hostile,seed=${seed % 1000}`;
  const { daemon, open } = await startSimulated(t, ['--simulate-faults', faults]);
  const client = await open();
  await eventually('an error', 30_000, async () => {
    // From the last to the first: in order they would share requests, and few answers are few lies.
    const replies = await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        client.read((99 - i) * 4096, 4096).catch(() => ({ error: 1 })),
      ),
    );
    return replies.some(({ error }) => error !== 0) ? true : undefined;
  });
  if (daemon.result === undefined) await daemon.stop();
  t.notMatch(daemon.log, /\n\s+at /, 'no stack trace');
});
