// Goal: limits on clients and their handshakes hold at n - 1, n and n + 1, and who goes beyond one
// harms nobody else.
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { Daemon } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { goData, Opt, Rep } from '../support/nbd-wire.ts';
import { logged, loggedSoon, startSimulated } from './support/simulated.ts';

void t.test('--max-connections', async (t) => {
  const { daemon, socket, open } = await startSimulated(t, ['--max-connections', '3']);
  const clients = [await open(), await open(), await open()];
  const refused = await NbdClient.connect({ path: socket });
  await refused.bytes.receiveEnd();
  const [line] = await loggedSoon(daemon, 'client-refused');
  t.match(line?.['message'], /client 4 \(unix\) refused: there are 3 already/);
  await clients.pop()?.disconnect();
  const next = await eventually('a place is free', 30_000, () => open().catch(() => undefined));
  t.equal((await next.readOk(0, 512)).length, 512);
  // Somebody who says nothing takes a place as well.
  await next.disconnect();
  await eventually('that place is free', 30_000, async () => {
    const silent = await NbdClient.connect({ path: socket });
    return (await silent.bytes.receiveOrEnd(18)) === undefined ? undefined : true;
  });
  await t.rejects(open());
  await daemon.stop();
});

void t.test('--handshake-timeout', async (t) => {
  const { daemon, socket } = await startSimulated(t, ['--handshake-timeout', '1']);
  const silent = await NbdClient.connect({ path: socket });
  const begunMs = performance.now();
  const chatty = await NbdClient.connect({ path: socket });
  await chatty.greet();
  const slow = await NbdClient.connect({ path: socket });
  await slow.greet();
  await setTimeout(300);
  await slow.go();
  await silent.bytes.receiveEnd();
  await chatty.bytes.receiveEnd();
  t.ok(performance.now() - begunMs >= 900, 'not before its time');
  t.equal((await slow.readOk(0, 512)).length, 512, 'who was through has all the time');
  await slow.disconnect();
  const lines = await loggedSoon(daemon, 'client-handshake', 2);
  t.match(lines[0]?.['message'], /took longer than 1000 ms/);
  await daemon.stop();
});

void t.test('--max-options and --max-option-size', async (t) => {
  const { daemon, socket } = await startSimulated(t, [
    '--max-options',
    '4',
    '--max-option-size',
    '1K',
  ]);
  const client = await NbdClient.connect({ path: socket });
  await client.greet();
  const name = (lengthBytes: number): Buffer => goData('x'.repeat(lengthBytes - 6), []);
  const answer = async (data: Buffer): Promise<number | undefined> =>
    (await client.option(Opt.INFO, data)).pop()?.type;
  t.equal(await answer(name(1023)), Rep.ERR_UNKNOWN);
  t.equal(await answer(name(1024)), Rep.ERR_UNKNOWN);
  t.equal(await answer(name(1025)), Rep.ERR_TOO_BIG);
  t.equal((await client.option(Opt.LIST)).length, 2, 'the fourth');
  client.sendOption(Opt.LIST);
  await client.bytes.receiveEnd();
  await daemon.stop();
});

void t.test('many who are refused leave few lines', async (t) => {
  const { daemon, socket } = await startSimulated(t);
  for (let i = 0; i < 60; i++) {
    const client = await NbdClient.connect({ path: socket });
    await client.greet(0xffff_ffff);
    await client.bytes.receiveEnd();
  }
  await loggedSoon(daemon, 'client-handshake', 20);
  await daemon.stop();
  t.equal(logged(daemon.log, 'client-handshake').length, 20);
  const [omitted] = logged(daemon.log, 'lines-omitted');
  t.equal(omitted?.['count'], 40, 'and a count of the rest');
});

void t.test(
  'who breaks the protocol is dropped with one line that says who and what',
  async (t) => {
    const daemon = await Daemon.start(['--simulate', '1M', '--listen', '127.0.0.1:0']);
    t.teardown(() => daemon.kill('SIGKILL'));
    const port = Number(/:(\d+)\//.exec(daemon.uris[0] ?? '')?.[1]);
    for (let i = 0; i < 30; i++) {
      const { client } = await NbdClient.open({ host: '127.0.0.1', port });
      client.bytes.send(Buffer.alloc(28, 0xee));
      await client.bytes.receiveEnd();
    }
    await loggedSoon(daemon, 'client-dropped', 20);
    await daemon.stop();
    const lines = logged(daemon.log, 'client-dropped');
    t.equal(lines.length, 20, 'no more of one kind in a while');
    const [line] = lines;
    t.match(line?.['peer'], /^127\.0\.0\.1:\d+$/);
    t.match(line?.['message'], /client 1 \(127\..*\) was dropped: .*something that is no request/);
    t.equal(logged(daemon.log, 'client-left').length, 0, 'and no second line');
    t.match(logged(daemon.log, 'lines-omitted')[0], { of: 'client-dropped', count: 10 });
  },
);
