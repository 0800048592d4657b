// Goal: limits on requests hold at n - 1, n and n + 1, and the smallest ones still serve everybody.
import t from 'tap';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, Errno, requestHeader } from '../support/nbd-wire.ts';
import { startSimulated } from './support/simulated.ts';

void t.test('--max-request-size', async (t) => {
  const { daemon, socket } = await startSimulated(t, ['--max-request-size', '1M'], '16M');
  const { client, description } = await NbdClient.open({ path: socket });
  t.equal(description.blockSize?.maximum, 2 ** 20, 'announced');
  for (const length of [2 ** 20 - 1, 2 ** 20]) {
    t.equal((await client.read(0, length)).error, Errno.OK, `${length}`);
    t.equal((await client.write(0, Buffer.alloc(length))).error, Errno.OK, `${length}`);
  }
  t.equal((await client.read(0, 2 ** 20 + 1)).error, Errno.EINVAL);
  t.equal((await client.write(0, Buffer.alloc(2 ** 20 + 1))).error, Errno.EINVAL);
  t.equal((await client.readOk(0, 512)).length, 512, 'the connection lives on');
  t.equal((await client.writeZeroes(0, 8 * 2 ** 20)).error, Errno.OK, 'no payload, no limit');
  await client.disconnect();
  await daemon.stop();
});

void t.test('--max-client-requests and --max-requests', async (t) => {
  for (const args of [
    ['--max-client-requests', '1'],
    ['--max-requests', '2', '--max-client-requests', '3', '--buffer-memory', '0'],
  ]) {
    const { daemon, open } = await startSimulated(t, args);
    const clients = [await open(), await open(), await open()];
    const answers = clients.flatMap((client) =>
      Array.from({ length: 50 }, (_, i) => client.read(i * 8192, 8192)),
    );
    t.ok(
      (await Promise.all(answers)).every(({ error }) => error === Errno.OK),
      args.join(' '),
    );
    const all = await Promise.all(clients.map((client) => client.readOk(0, 8 * 2 ** 20)));
    t.ok(
      all.every(({ length }) => length === 8 * 2 ** 20),
      'larger than the granted pages',
    );
    // One that sends half a write and no more holds up those behind it no longer than it is there.
    const half = await open();
    half.bytes.send(requestHeader({ type: Cmd.WRITE, length: 4096 }, 1n));
    half.bytes.destroy();
    t.equal((await (await open()).readOk(0, 512)).length, 512);
    for (const client of clients) await client.disconnect();
    await daemon.stop();
  }
});
