// Goal: mode and owner of a Unix socket are what was asked for, at no moment more, and TCP clients
// are asked whether they live.
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import {
  applyAccess,
  parseUnixMode,
  parseUnixOwner,
  resolveOwner,
} from '../../src/daemon/unix-access.ts';
import { Daemon } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { makeFolder, startSimulated } from './support/simulated.ts';

void t.test('the mode of chmod', async (t) => {
  t.equal(parseUnixMode('660'), 0o660);
  t.equal(parseUnixMode('0600'), 0o600);
  for (const text of ['', '66', '888', '1777', 'rw', '0x1']) {
    t.throws(() => parseUnixMode(text), { name: 'UsageError' }, text);
  }
});

void t.test('the owner of chown', async (t) => {
  for (const text of ['root', 'root:root', ':disk', '0:0', ':6']) {
    t.equal(parseUnixOwner(text), text);
  }
  for (const text of ['', ':', 'a:', 'a:b:c', 'a b']) {
    t.throws(() => parseUnixOwner(text), { name: 'UsageError' }, text);
  }
  const folder = makeFolder(t);
  const files = { passwd: join(folder, 'passwd'), group: join(folder, 'group') };
  writeFileSync(files.passwd, 'root:x:0:0::/root:/bin/sh\nnbd:x:998:997::/:/bin/false\n');
  writeFileSync(files.group, 'root:x:0:\nnbd:x:997:\ndisk:x:6:a,b\n');
  t.strictSame(resolveOwner('nbd:disk', files), { uid: 998, gid: 6 });
  t.strictSame(resolveOwner('nbd', files), { uid: 998, gid: -1 });
  t.strictSame(resolveOwner(':disk', files), { uid: -1, gid: 6 });
  t.strictSame(resolveOwner('1000:7', files), { uid: 1000, gid: 7 });
  t.throws(() => resolveOwner('nb', files), { message: /there is no user nb in .*passwd/ });
  t.throws(() => resolveOwner(':nbd:', { ...files, group: '/missing' }), {
    message: /there is no group nbd in \/missing/,
  });
});

void t.test('a socket at work', async (t) => {
  const isRoot = process.getuid?.() === 0;
  const owner = isRoot ? '12345:54321' : `:${process.getgid?.() ?? 0}`;
  const { daemon, socket } = await startSimulated(t, ['--unix-mode', '660', '--unix-owner', owner]);
  const stat = statSync(socket);
  t.equal(stat.mode & 0o777, 0o660);
  if (isRoot) t.strictSame([stat.uid, stat.gid], [12_345, 54_321]);
  await daemon.stop();
});

void t.test('what may not be done', async (t) => {
  const path = join(makeFolder(t), 'x.sock');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.throws(() => applyAccess(path, { mode: 0o600, owner: 'no-such-user-here' }), {
    name: 'DaemonError',
    message: /there is no user no-such-user-here/,
  });
  t.throws(() => applyAccess(`${path}x`, { mode: 0o600, owner: undefined }), {
    name: 'DaemonError',
    message: /cannot give the socket/,
  });
  server.close();
});

/** The timer of the connection from `port`, in /proc/net/tcp (proc(5)): 2 is keep-alive. */
function keepAliveTimer(port: number): { kind: number; seconds: number } {
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  const line = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((text) => text.trim().split(/\s+/))
    .find((words) => words[1]?.endsWith(`:${hexPort}`) && words[3] === '01');
  const [kind = '', ticks = ''] = line?.[5]?.split(':') ?? [];
  return { kind: Number.parseInt(kind, 16), seconds: Number.parseInt(ticks, 16) / 100 };
}

void t.test('TCP clients that fall silent', async (t) => {
  for (const [option, kind] of [
    ['30', 2],
    ['0', 0],
  ] as const) {
    const args = ['--simulate', '1M', '--listen', '127.0.0.1:0', '--tcp-keepalive', option];
    const daemon = await Daemon.start(args);
    t.teardown(() => daemon.kill('SIGKILL'));
    const port = Number(/:(\d+)\//.exec(daemon.uris[0] ?? '')?.[1]);
    const { client } = await NbdClient.open({ host: '127.0.0.1', port });
    await client.readOk(0, 512);
    // Until its last reply is acknowledged, the connection has another timer.
    const timer = await eventually('no reply is under way', 30_000, () => {
      const now = keepAliveTimer(port);
      return now.kind === 1 ? undefined : now;
    });
    t.equal(timer.kind, kind, `--tcp-keepalive ${option}`);
    if (kind === 2) t.ok(timer.seconds > 20 && timer.seconds <= 30, `${timer.seconds} s`);
    await client.disconnect();
    await daemon.stop();
  }
});
