// Goal: --stdio serves the one client that started us, over pipes and over a socket, says nothing
// else on stdout, and ends with it.
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import t, { type Test } from 'tap';
import { runXenblkNbd, XENBLK_NBD } from '../support/daemon.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, Errno, goData, Opt, requestHeader, u32 } from '../support/nbd-wire.ts';
import { runProgram } from '../support/program.ts';
import { makeFolder } from './support/simulated.ts';

const SERVE = [XENBLK_NBD, 'serve', '--simulate', '8M', '--stdio'];

interface Piped {
  readonly child: ChildProcess;
  readonly input: Writable;
  readonly receive: (length: number) => Promise<Buffer>;
  readonly ended: Promise<{ status: number | null; rest: Buffer; stderr: string }>;
}

function start(t: Test, args: readonly string[] = []): Piped {
  const child = spawn(process.execPath, [...SERVE, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  const output: Readable = child.stdout;
  let stderr = '';
  child.stderr.on('data', (text: Buffer) => {
    stderr += text.toString();
  });
  const chunks: Buffer[] = [];
  let wake = (): void => undefined;
  output.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    wake();
  });
  output.on('end', () => wake());
  const receive = async (length: number): Promise<Buffer> => {
    while (chunks.reduce((sum, chunk) => sum + chunk.length, 0) < length) {
      if (output.readableEnded) throw new Error(`stdout ended\n${stderr}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const bytes = Buffer.concat(chunks.splice(0));
    chunks.push(bytes.subarray(length));
    return bytes.subarray(0, length);
  };
  const ended = new Promise<{ status: number | null; rest: Buffer; stderr: string }>((resolve) => {
    child.on('close', (status) => {
      resolve({ status, rest: Buffer.concat(chunks), stderr });
    });
  });
  return { child, input: child.stdin, receive, ended };
}

function option(number: number, data: Buffer): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT', 'latin1'), u32(number), u32(data.length), data]);
}

void t.test('a client on two pipes', async (t) => {
  const { input, receive, ended } = start(t);
  t.equal((await receive(18)).subarray(0, 8).toString(), 'NBDMAGIC', 'the first bytes of stdout');
  input.write(Buffer.concat([u32(3), option(Opt.GO, goData('', []))]));
  await receive(32 + 20);
  const payload = Buffer.alloc(3_000_000, 7);
  input.write(requestHeader({ type: Cmd.WRITE, offset: 1, payload }, 1n));
  input.write(payload);
  t.equal((await receive(16)).readUInt32BE(4), 0, 'written');
  input.write(requestHeader({ type: Cmd.READ, offset: 1, length: payload.length }, 2n));
  t.equal((await receive(16)).readUInt32BE(4), 0);
  t.ok((await receive(payload.length)).equals(payload), 'and read back');
  input.write(requestHeader({ type: Cmd.DISC }, 3n));
  const { status, rest, stderr } = await ended;
  t.equal(status, 0);
  t.equal(rest.length, 0);
  t.match(stderr, /"event":"client-left"/, 'the log is on stderr');
});

void t.test('a client that leaves in the middle', async (t) => {
  const { input, receive, ended } = start(t);
  await receive(18);
  input.end(u32(3));
  t.equal((await ended).status, 0);
});

void t.test('a client on one socket', async (t) => {
  const path = join(makeFolder(t), 'inetd.sock');
  const accepted = new Promise<Socket>((resolve) => {
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      server.close();
      resolve(socket);
    });
    server.listen(path);
  });
  const connecting = NbdClient.connect({ path });
  const socket = await accepted;
  const child = spawn(process.execPath, SERVE, { stdio: [socket, socket, 'ignore'] });
  t.teardown(() => child.kill('SIGKILL'));
  socket.destroy();
  const client = await connecting;
  await client.greet();
  await client.go();
  t.equal((await client.write(5, Buffer.alloc(1_000_000, 1))).error, Errno.OK);
  t.ok((await client.readOk(5, 1_000_000)).equals(Buffer.alloc(1_000_000, 1)));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await client.disconnect();
  t.equal(await ended, 0, 'it ends with its client');
});

void t.test('no client, no service', async (t) => {
  const file = await runProgram('/bin/sh', [
    '-c',
    `exec "$0" "$@" < /dev/null > /dev/null`,
    process.execPath,
    ...SERVE,
  ]);
  t.equal(file.status, 1);
  t.match(file.stderr, /^xenblk-nbd: --stdio needs a socket, or pipes[^\n]*\n$/);
  const both = await runXenblkNbd(['serve', '--simulate', '1M', '--stdio', '--unix', '/tmp/x']);
  t.equal(both.status, 2);
  t.match(both.stderr, /^xenblk-nbd: --stdio [^\n]*\n$/);
});
