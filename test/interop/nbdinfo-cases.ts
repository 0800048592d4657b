// What libnbd's nbdinfo (and nbd-client -l) say of the exports.
import assert from 'node:assert/strict';
import { findFreePort } from '../support/free-port.ts';
import { unixUri } from '../support/nbd-server.ts';
import { findProgram, mustRun, runProgram } from '../support/program.ts';
import type { InteropCase } from './runner.ts';

const SIZE_BYTES = 16 * 1024 * 1024;

interface NbdinfoExport {
  readonly 'export-name': string;
  readonly 'export-size': number;
  readonly [field: string]: unknown;
}

interface NbdinfoReport {
  readonly protocol: string;
  readonly TLS: boolean;
  readonly exports: readonly NbdinfoExport[];
}

async function nbdinfoJson(args: readonly string[]): Promise<NbdinfoReport> {
  const { stdout } = await mustRun('nbdinfo', ['--json', ...args]);
  return JSON.parse(stdout) as NbdinfoReport;
}

export const nbdinfoCases: readonly InteropCase[] = [
  {
    name: 'nbdinfo over a Unix socket',
    needs: ['nbdinfo'],
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      const { stdout } = await mustRun('nbdinfo', [server.uri]);
      assert.match(stdout, /protocol: newstyle-fixed without TLS/);
      assert.match(stdout, /export-size: 16777216 \(16M\)/);
      assert.match(stdout, /is_read_only: false/);
      const size = await mustRun('nbdinfo', ['--size', server.uri]);
      assert.equal(size.stdout, '16777216\n');
    },
  },
  {
    name: 'nbdinfo over TCP, and a Unix socket beside it',
    needs: ['nbdinfo'],
    isOurs: true,
    async run(context) {
      const port = await findFreePort();
      const server = await context.serve(context.image(SIZE_BYTES), {
        extraArgs: ['--listen', `127.0.0.1:${port}`],
      });
      for (const uri of [`nbd://127.0.0.1:${port}/`, `nbd://localhost:${port}`, server.uri]) {
        const { stdout } = await mustRun('nbdinfo', ['--size', uri]);
        assert.equal(stdout, '16777216\n', uri);
      }
    },
  },
  {
    name: 'nbdinfo --json: size, capabilities and block sizes',
    needs: ['nbdinfo'],
    isOurs: true,
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      const report = await nbdinfoJson([server.uri]);
      assert.equal(report.protocol, 'newstyle-fixed');
      assert.equal(report.TLS, false);
      assert.equal(report.exports.length, 1);
      const [disk] = report.exports;
      const expected = {
        'export-size': SIZE_BYTES,
        is_read_only: false,
        is_rotational: false,
        can_flush: true,
        can_fua: true,
        can_trim: true,
        can_zero: true,
        can_multi_conn: true,
        block_size_minimum: 1,
        block_size_preferred: 4096,
        block_size_maximum: 32 * 1024 * 1024,
      };
      for (const [field, value] of Object.entries(expected)) {
        assert.equal(disk?.[field], value, `field ${field} of nbdinfo --json`);
      }
    },
  },
  {
    name: 'nbdinfo --list names the exports, and each of them opens',
    needs: ['nbdinfo'],
    isOurs: true,
    async run(context) {
      const exportName = 'disk one/ü';
      const server = await context.serve(context.image(SIZE_BYTES), {
        extraArgs: ['--export', exportName],
      });
      const report = await nbdinfoJson(['--list', server.uri]);
      const names = report.exports.map((entry) => entry['export-name']);
      assert.ok(names.includes(exportName), `${JSON.stringify(names)} has the name given`);
      for (const name of [...names, '']) {
        const uri = unixUri(context.path('nbd0.sock'), name);
        const { stdout } = await mustRun('nbdinfo', ['--size', uri]);
        assert.equal(stdout, '16777216\n', `size of export ${JSON.stringify(name)}`);
      }
      const text = await mustRun('nbdinfo', ['--list', server.uri]);
      assert.match(text.stdout, /export-size: 16777216/);
    },
  },
  {
    name: 'nbdinfo of an export that does not exist is refused',
    needs: ['nbdinfo'],
    isOurs: true,
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      const uri = unixUri(context.path('nbd0.sock'), 'no-such-export');
      const refused = await runProgram('nbdinfo', [uri]);
      assert.equal(refused.status, 1);
      await mustRun('nbdinfo', [server.uri]);
    },
  },
  {
    name: 'nbdinfo --is read-only and --can, on a read-only export and on a writable one',
    needs: ['nbdinfo'],
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const writable = await context.serve(image);
      const readOnly = await context.serve(image, { isReadOnly: true });
      const status = async (uri: string, ...args: string[]): Promise<number | null> =>
        (await runProgram('nbdinfo', [...args, uri])).status;
      // Exit code 0 is yes, 2 is no.
      assert.equal(await status(writable.uri, '--is', 'read-only'), 2);
      assert.equal(await status(writable.uri, '--can', 'write'), 0);
      assert.equal(await status(writable.uri, '--can', 'flush'), 0);
      assert.equal(await status(writable.uri, '--can', 'fua'), 0);
      assert.equal(await status(writable.uri, '--can', 'trim'), 0);
      assert.equal(await status(writable.uri, '--can', 'zero'), 0);
      assert.equal(await status(readOnly.uri, '--is', 'read-only'), 0);
      assert.equal(await status(readOnly.uri, '--can', 'write'), 2);
    },
  },
  {
    name: 'nbd-client -l lists the exports over TCP',
    needs: ['nbd-client'],
    isOurs: true,
    async run(context) {
      const port = await findFreePort();
      await context.serve(context.image(SIZE_BYTES), {
        extraArgs: ['--listen', `127.0.0.1:${port}`, '--export', 'backup'],
      });
      const command = findProgram('nbd-client') ?? 'nbd-client';
      const { stdout } = await mustRun(command, ['-l', '127.0.0.1', String(port)]);
      assert.match(stdout, /^backup(?:\b|$)/m);
    },
  },
];
