// Command lines that cannot work: one line on stderr that says what to do, exit code 1, or 2 for
// wrong usage, and nothing left behind. And those that look wrong but must work.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { Daemon, runXenblkNbd } from '../support/daemon.ts';
import { createSparseImage } from '../support/disk-image.ts';
import { findFreePort } from '../support/free-port.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Errno } from '../support/nbd-wire.ts';
import { describeEnd, mustRun } from '../support/program.ts';
import type { CaseContext, InteropCase } from './runner.ts';

const MIB = 1024 * 1024;

interface Refusal {
  readonly name: string;
  readonly exitCode: 1 | 2;
  /** The one line must have all of these: what it is about, and a way out where there is one. */
  readonly says: readonly RegExp[];
  /** Seen only after the disk was attached, which the log may have told by then. */
  readonly isLate?: true;
  /** Prepares the trouble and returns the command line. */
  args(context: CaseContext): Promise<string[]> | string[];
}

function listenOn(context: CaseContext, where: string | { port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const server: Server = createServer((socket) => socket.end());
    server.once('error', reject);
    const ready = (): void => {
      context.atEnd(() => new Promise((closed) => server.close(() => closed())));
      resolve();
    };
    if (typeof where === 'string') server.listen(where, ready);
    else server.listen(where.port, '127.0.0.1', ready);
  });
}

/** A disk that works, to be broken by what follows it on the command line. */
function goodDisk(context: CaseContext): string[] {
  const image = context.path('disk.raw');
  createSparseImage(image, MIB);
  return ['serve', '--simulate', image];
}

function unix(context: CaseContext): string[] {
  return ['--unix', context.path('new.sock')];
}

const REFUSALS: readonly Refusal[] = [
  {
    name: 'a file that does not exist',
    exitCode: 1,
    says: [/missing\.raw/, /no such file|does not exist|not found/i],
    args: (context) => ['serve', '--simulate', context.path('missing.raw'), ...unix(context)],
  },
  {
    name: 'a folder instead of a file',
    exitCode: 1,
    says: [/directory|folder|not a (?:regular )?file/i],
    args: (context) => ['serve', '--simulate', context.folder, ...unix(context)],
  },
  {
    name: 'a file whose size is not a multiple of 512',
    exitCode: 1,
    says: [/odd\.raw/, /512/],
    args(context) {
      writeFileSync(context.path('odd.raw'), Buffer.alloc(1000));
      return ['serve', '--simulate', context.path('odd.raw'), ...unix(context)];
    },
  },
  {
    name: 'an empty file',
    exitCode: 1,
    says: [/empty\.raw/],
    args(context) {
      writeFileSync(context.path('empty.raw'), '');
      return ['serve', '--simulate', context.path('empty.raw'), ...unix(context)];
    },
  },
  {
    name: 'a Unix socket that a live server has',
    exitCode: 1,
    says: [/live\.sock/, /in use|listen/i],
    async args(context) {
      await listenOn(context, context.path('live.sock'));
      return [...goodDisk(context), '--unix', context.path('live.sock')];
    },
  },
  {
    name: 'a Unix socket path where an ordinary file is',
    exitCode: 1,
    says: [/precious/, /not a socket|is a file|ordinary file|in use|exists/i],
    args(context) {
      writeFileSync(context.path('precious'), 'keep me');
      return [...goodDisk(context), '--unix', context.path('precious')];
    },
  },
  {
    name: 'a Unix socket in a folder that does not exist',
    exitCode: 1,
    says: [/nowhere/],
    args: (context) => [...goodDisk(context), '--unix', context.path('nowhere/new.sock')],
  },
  {
    name: 'a Unix socket path longer than the system allows',
    exitCode: 2,
    says: [/long|107|108/],
    args: (context) => [...goodDisk(context), '--unix', context.path('x'.repeat(120))],
  },
  {
    name: 'a TCP port in use',
    exitCode: 1,
    says: [/in use/i],
    async args(context) {
      const port = await findFreePort();
      await listenOn(context, { port });
      return [...goodDisk(context), '--listen', `127.0.0.1:${port}`];
    },
  },
  {
    name: 'a second address in use: the first is given back',
    exitCode: 1,
    says: [/in use/i],
    async args(context) {
      const port = await findFreePort();
      await listenOn(context, { port });
      return [...goodDisk(context), ...unix(context), '--listen', `127.0.0.1:${port}`];
    },
  },
  {
    name: 'an address that is none',
    exitCode: 2,
    says: [/nonsense/, /HOST:PORT/],
    args: (context) => [...goodDisk(context), '--listen', 'nonsense'],
  },
  {
    name: 'a port beyond 65535',
    exitCode: 2,
    says: [/65536/],
    args: (context) => [...goodDisk(context), '--listen', '127.0.0.1:65536'],
  },
  {
    name: 'an option that does not exist',
    exitCode: 2,
    says: [/--no-such-option/],
    args: (context) => [...goodDisk(context), '--no-such-option'],
  },
  {
    name: 'a command that does not exist',
    exitCode: 2,
    says: [/serv\b|'serv'/],
    args: () => ['serv'],
  },
  {
    name: 'an option without its value',
    exitCode: 2,
    says: [/--unix/],
    args: (context) => [...goodDisk(context), '--unix'],
  },
  {
    name: 'a log level that does not exist',
    exitCode: 2,
    says: [/--log-level/, /loud/],
    args: (context) => [...goodDisk(context), ...unix(context), '--log-level', 'loud'],
  },
  {
    name: 'a name that is no vbd',
    exitCode: 2,
    says: [/not-a-disk/],
    args: (context) => ['serve', 'not-a-disk', ...goodDisk(context).slice(1), ...unix(context)],
  },
  {
    name: 'a pid file that cannot be written',
    exitCode: 1,
    isLate: true,
    says: [/nowhere/],
    args: (context) => [
      ...goodDisk(context),
      ...unix(context),
      '--pid-file',
      context.path('nowhere/daemon.pid'),
    ],
  },
];

function refusalCase(refusal: Refusal): InteropCase {
  return {
    name: `refused: ${refusal.name}`,
    isOurs: true,
    async run(context) {
      const args = await refusal.args(context);
      const before = readdirSync(context.folder).sort();
      const result = await runXenblkNbd(args, { timeoutMs: 20_000, cwd: context.folder });
      const log = /^\{"level":30,.*\n/gm;
      const stderr = refusal.isLate ? result.stderr.replaceAll(log, '') : result.stderr;
      const shown = `${describeEnd(result)}, stderr:\n${stderr}`;
      assert.equal(
        result.status,
        refusal.exitCode,
        `expected exit code ${refusal.exitCode}: ${shown}`,
      );
      assert.match(stderr, /^[^\n]+\n$/, `expected one line: ${shown}`);
      for (const pattern of refusal.says) assert.match(stderr, pattern);
      assert.doesNotMatch(stderr, /^\s+at |node:internal/, 'no stack trace');
      assert.doesNotMatch(result.stdout, /ready:/, 'never ready');
      assert.deepEqual(readdirSync(context.folder).sort(), before, 'nothing is left behind');
    },
  };
}

export const commandLineCases: readonly InteropCase[] = [
  ...REFUSALS.map(refusalCase),
  {
    name: 'refused: a real vbd where there is no Xen',
    isOurs: true,
    async run(context) {
      if (existsSync('/dev/xen/xenbus') || existsSync('/proc/xen/xenbus')) return;
      const result = await runXenblkNbd(['serve', 'xvdb', ...unix(context)]);
      assert.equal(result.status, 1, result.stderr);
      assert.match(result.stderr, /^[^\n]+\n$/, `expected one line:\n${result.stderr}`);
      assert.match(result.stderr, /\/dev\/xen|\/proc\/xen/);
      assert.match(result.stderr, /--simulate|guest|module/);
    },
  },
  {
    name: 'a stale Unix socket is replaced, its mode keeps others out, and it is removed at the end',
    isOurs: true,
    async run(context) {
      const [, ...args] = goodDisk(context);
      const socket = context.path('stale.sock');
      const first = await Daemon.start([...args, '--unix', socket]);
      first.kill('SIGKILL');
      await first.waitForEnd();
      assert.ok(existsSync(socket), 'kill -9 leaves the socket');
      const second = await Daemon.start([...args, '--unix', socket]);
      assert.equal(statSync(socket).mode & 0o077, 0, 'mode of the socket');
      const { client } = await NbdClient.open({ path: socket });
      assert.equal((await client.read(0, 512)).error, Errno.OK);
      await client.disconnect();
      await second.stop();
      assert.ok(!existsSync(socket), 'SIGTERM removes the socket');
    },
  },
  {
    name: 'the ready lines are URIs that work, and the pid file holds the pid while it runs',
    isOurs: true,
    needs: ['nbdinfo'],
    async run(context) {
      const [, ...args] = goodDisk(context);
      const port = await findFreePort();
      const pidFile = context.path('daemon.pid');
      const daemon = await Daemon.start([
        ...args,
        '--unix',
        context.path('new.sock'),
        '--listen',
        `127.0.0.1:${port}`,
        '--pid-file',
        pidFile,
      ]);
      assert.equal(readFileSync(pidFile, 'utf8').trim(), String(daemon.pid));
      assert.equal(daemon.uris.length, 2);
      assert.match(daemon.uris[0] ?? '', /^nbd\+unix:\/\/\/[^?]*\?socket=/);
      assert.match(daemon.uris[1] ?? '', new RegExp(`^nbd://127\\.0\\.0\\.1:${port}/`));
      for (const uri of daemon.uris) {
        assert.equal((await mustRun('nbdinfo', ['--size', uri])).stdout, `${MIB}\n`, uri);
      }
      await daemon.stop();
      assert.ok(!existsSync(pidFile), 'the pid file is removed');
    },
  },
  {
    name: 'a RAM disk by its size, and SIGINT as well as SIGTERM',
    isOurs: true,
    async run(context) {
      for (const [size, bytes] of [
        ['64M', 64 * MIB],
        ['2G', 2048 * MIB],
      ] as const) {
        const socket = context.path(`ram${size}.sock`);
        const daemon = await Daemon.start(['--simulate', size, '--unix', socket]);
        const { client, description } = await NbdClient.open({ path: socket });
        assert.equal(description.sizeBytes, BigInt(bytes));
        const payload = Buffer.alloc(5000, 0x33);
        assert.equal((await client.write(bytes - 5000, payload)).error, Errno.OK);
        assert.deepEqual(await client.readOk(bytes - 5000, 5000), payload);
        assert.deepEqual(await client.readOk(0, 4096), Buffer.alloc(4096));
        await client.disconnect();
        daemon.kill('SIGINT');
        assert.equal(describeEnd(await daemon.waitForEnd()), 'exit code 0');
      }
    },
  },
  {
    name: 'a file that may not be written: refused, or served with --read-only',
    isOurs: true,
    async run(context) {
      const [, ...args] = goodDisk(context);
      chmodSync(context.path('disk.raw'), 0o444);
      const socket = context.path('new.sock');
      const daemon = await Daemon.start([...args, '--unix', socket, '--read-only']);
      const { client } = await NbdClient.open({ path: socket });
      assert.equal((await client.write(0, Buffer.alloc(512))).error, Errno.EPERM);
      await client.disconnect();
      await daemon.stop();
      // Root may write anything, so only another user sees the refusal.
      if (process.getuid?.() === 0) return;
      const result = await runXenblkNbd(['serve', ...args, '--unix', socket]);
      assert.equal(result.status, 1);
      assert.match(result.stderr, /--read-only/);
    },
  },
];
