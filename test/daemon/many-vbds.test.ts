// Goal: one process serves several vbds, each under its own name, and none finds another's bytes.
import { readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { runXenblkNbd } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Errno } from '../support/nbd-wire.ts';
import { logged, startSimulated } from './support/simulated.ts';

void t.test('each vbd is an export with a disk of its own', async (t) => {
  const { daemon, socket, open } = await startSimulated(t, ['xvdb', '/dev/xvdc', '51776']);
  const probe = await NbdClient.connect({ path: socket });
  await probe.greet();
  t.strictSame(await probe.list(), ['xvdb', 'xvdc', 'xvde']);
  probe.bytes.destroy();
  const names = ['xvdb', 'xvdc', 'xvde'];
  const clients = await Promise.all(names.map((name) => open(name)));
  for (const [index, client] of clients.entries()) {
    t.equal((await client.write(0, Buffer.alloc(70_000, index + 1))).error, Errno.OK);
  }
  for (const [index, client] of clients.entries()) {
    t.ok(
      (await client.readOk(0, 70_000)).equals(Buffer.alloc(70_000, index + 1)),
      `${names[index]}`,
    );
  }
  const nameless = await open();
  t.equal((await nameless.readOk(0, 1))[0], 1, 'the empty name is the first vbd');
  await t.rejects(open('xvdd'), 'an export that does not exist');
  const [pages = 0, ...others] = logged(daemon.log, 'attached').map((line) => line['grantedPages']);
  t.strictSame(others, [pages, pages], 'all have as many pages');
  t.ok((pages as number) * 3 < 1024, 'and together less than a guest may grant');
  for (const client of [...clients, nameless]) await client.disconnect();
  const tasks = `/proc/${daemon.pid}/task`;
  const threads = readdirSync(tasks).map((id) => readFileSync(`${tasks}/${id}/comm`, 'utf8'));
  for (const name of names) t.ok(threads.includes(`lane-0-${name}\n`), `a lane of ${name}`);
  await daemon.stop();
});

void t.test('ready lines name each export at each address', async (t) => {
  const { daemon } = await startSimulated(t, ['xvdb', 'xvdc', '--listen', '127.0.0.1:0']);
  const expected = [
    /ready: nbd\+unix:\/\/\/xvdb\?/,
    /ready: nbd\+unix:\/\/\/xvdc\?/,
    /ready: nbd:\/\/127\.0\.0\.1:\d+\/xvdc\n/,
  ];
  for (const line of expected) {
    const isThere = (): true | undefined => line.test(daemon.output) || undefined;
    t.ok(await eventually(`a line like ${line}`, 30_000, isThere));
  }
  await daemon.stop();
});

void t.test('what cannot be served together is refused', async (t) => {
  const refused = async (args: string[], status: number, message: RegExp): Promise<void> => {
    const result = await runXenblkNbd(['serve', ...args]);
    t.equal(result.status, status, args.join(' '));
    t.match(result.stderr, message);
    t.equal(result.stderr.trim().split('\n').length, 1, 'one line');
  };
  const listen = ['--listen', '127.0.0.1:0'];
  await refused(['xvdb', '51728', '--simulate', '1M', ...listen], 2, /are the same vbd/);
  await refused(['xvdb', 'xvdc', '--simulate', '1M', '--export', 'x'], 2, /--export/);
  await refused(['xvdb', 'xvdc', '--simulate', '/etc/hostname'], 2, /--simulate FILE/);
  await refused(['xvdb', '--simulate', '1M', '--take-over', ...listen], 2, /--take-over/);
});
