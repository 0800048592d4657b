// Goal: sockets that a service manager passes are served, and nothing that was not meant for us is
// touched. Method: a shell in the place of the manager, which starts the daemon with descriptor 3.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { takePassedDescriptors } from '../../src/daemon/activation.ts';
import { closeFd, createSocketPair } from '../../src/sys/index.ts';
import type { Address } from '../support/byte-connection.ts';
import { XENBLK_NBD } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { findFreePort } from '../support/free-port.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { bindDatagrams, listenTcp, listenUnix } from './support/raw-listener.ts';
import { makeFolder } from './support/simulated.ts';

interface Activated {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly status: Promise<number | null>;
}

/** Runs `serve` with `passed` as descriptor 3, as systemd would. */
function activate(
  t: Test,
  passed: number,
  args: readonly string[] = [],
  names = 'nbd.socket',
): Activated {
  const script = `export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=${names}; exec "$0" "$@"`;
  const serve = [XENBLK_NBD, 'serve', '--simulate', '8M', '--log-level', 'warn', ...args];
  const child = spawn('/bin/sh', ['-c', script, process.execPath, ...serve], {
    stdio: ['ignore', 'pipe', 'pipe', passed],
  });
  closeFd(passed);
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (text: Buffer) => {
      output += text.toString();
    });
  }
  const status = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { child, output: () => output, status };
}

async function serves(t: Test, { child, output, status }: Activated, at: Address): Promise<string> {
  const uri = await eventually('ready', 30_000, () => /^ready: (.*)$/m.exec(output())?.[1]);
  const { client } = await NbdClient.open(at);
  t.equal((await client.readOk(0, 4096)).length, 4096);
  await client.disconnect();
  child.kill('SIGTERM');
  t.equal(await status, 0, output());
  return uri;
}

void t.test('a Unix socket', async (t) => {
  const path = join(makeFolder(t), 'passed.sock');
  const uri = await serves(t, activate(t, listenUnix(path)), { path });
  t.match(uri, /^nbd\+unix:\/\/\/xvda\?socket=.*passed\.sock$/);
  t.ok(existsSync(path), 'its file is not ours to remove');
});

void t.test('a TCP socket, and one of our own beside it', async (t) => {
  const port = await findFreePort();
  const path = join(makeFolder(t), 'own.sock');
  const activated = activate(t, listenTcp(port), ['--unix', path]);
  const uri = await serves(t, activated, { path });
  t.equal(uri, `nbd://127.0.0.1:${port}/xvda`);
  t.match(activated.output(), /^ready: nbd\+unix:.*own\.sock$/m);
  t.notMatch(activated.output(), /10809/, 'the default address is not taken');
  t.notOk(existsSync(path), 'the file of our own socket is removed');
});

void t.test('a client that came before the daemon', async (t) => {
  const path = join(makeFolder(t), 'passed.sock');
  const fd = listenUnix(path);
  const client = await NbdClient.connect({ path });
  const { child, status } = activate(t, fd);
  await client.greet();
  await client.go();
  await client.disconnect();
  child.kill('SIGTERM');
  t.equal(await status, 0);
});

void t.test('what cannot be served', async (t) => {
  const folder = makeFolder(t);
  const [one, other] = createSocketPair();
  const refused = async (what: string, fd: number, message: RegExp): Promise<void> => {
    const { output, status } = activate(t, fd);
    t.equal(await status, 1, what);
    t.match(output(), message);
    t.match(output(), /^[^\n]*\n$/, 'one line');
  };
  await refused('a file', openSync('/dev/null', 'r'), /no socket/);
  await refused('a connection', one, /is a connection.*Accept=no/);
  await refused('datagrams', bindDatagrams(join(folder, 'dgram')), /no stream socket/);
  closeFd(other);
});

void t.test('the variables', async (t) => {
  const env = { LISTEN_PID: '1', LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b', OTHER: 'stays' };
  t.strictSame(takePassedDescriptors(env), [], 'meant for another process');
  t.strictSame(env, { OTHER: 'stays' } as unknown, 'nobody after us sees them');
  const pid = String(process.pid);
  t.strictSame(takePassedDescriptors({ LISTEN_PID: pid, LISTEN_FDS: '2', LISTEN_FDNAMES: 'a' }), [
    { fd: 3, name: 'a' },
    { fd: 4, name: 'unknown' },
  ]);
  for (const count of ['-1', '', 'x', '99999999']) {
    t.strictSame(takePassedDescriptors({ LISTEN_PID: pid, LISTEN_FDS: count }), [], count);
  }
});
