// Goal: each package of this repository is one that people can install: packed, put into an empty
// project, imported, compiled against, and found right by publint and are-the-types-wrong.

import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from './house/source-files.ts';
import { words } from './support/program.ts';

t.setTimeout(300_000);

interface Package {
  readonly name: string;
  /** TypeScript of a user, which prints `works`. */
  readonly program: string;
}

const PACKAGES: readonly Package[] = [
  {
    name: 'nbd-server-ts',
    program: `
import { connect } from 'node:net';
import { type BlockBackend, NbdServer } from 'nbd-server-ts';
import { NbdCmd } from 'nbd-server-ts/protocol';

const zeroes: BlockBackend = { sizeBytes: 512, read: (target: Uint8Array) => void target.fill(0) };
const server = new NbdServer({ exports: [{ name: 'zeroes', backend: zeroes }] });
const address = await server.listen({ port: 0 });
if (address.kind !== 'tcp' || NbdCmd.READ !== 0) throw new Error('not what was asked for');
const socket = connect({ host: address.host, port: address.port });
const greeting = await new Promise<Buffer>((resolve) => socket.once('data', resolve));
socket.destroy();
await server.close({ drainMs: 0 });
if (greeting.toString('latin1', 0, 8) === 'NBDMAGIC') console.log('works');
`,
  },
  {
    name: 'xenstore-client',
    program: `
import { type StoreOperations, XenStoreClient, XenStoreError } from 'xenstore-client';
import { PacketFramer } from 'xenstore-client/wire';

const read = (store: StoreOperations): Promise<string> => store.read('domid');
const isThere = [read, XenStoreClient, XenStoreError, PacketFramer].every(
  (it) => typeof it === 'function',
);
if (isThere) console.log('works');
`,
  },
];

/** Without the hooks that the test runner loads into every Node program. */
const env = { ...process.env, NODE_OPTIONS: '' };

/** Runs a program to its end. Resolves with its status and all that it printed. */
function run(
  command: string,
  args: readonly string[],
  cwd: string,
): Promise<{ isGood: boolean; output: string }> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd, env }, (error, stdout, stderr) => {
      resolve({ isGood: error === null, output: stdout + stderr });
    });
  });
}

const bin = (name: string): string => join(ROOT, 'node_modules/.bin', name);

for (const { name, program } of PACKAGES) {
  void t.test(name, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'xenblk-package-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const good = async (
      what: string,
      command: string,
      args: readonly string[],
    ): Promise<string> => {
      const { isGood, output } = await run(command, args, folder);
      t.ok(isGood, `${what}: ${output}`);
      return output;
    };
    const source = join(ROOT, 'src', name);
    // It has been built already, as it is before every test.
    const pack = ['pack', source, '--ignore-scripts', '--pack-destination', folder];
    await good('npm pack', 'npm', pack);
    const { version } = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8'));
    const tarball = join(folder, `${name}-${version}.tgz`);
    await good('publint', bin('publint'), ['run', tarball, '--strict']);
    await good('attw', bin('attw'), [tarball, '--profile', 'esm-only']);

    writeFileSync(join(folder, 'package.json'), '{ "type": "module", "private": true }');
    const install = ['install', '--offline', '--no-audit', '--no-fund', tarball];
    await good('npm install in an empty project', 'npm', install);
    writeFileSync(join(folder, 'program.ts'), program);
    const tsc = `@typescript/typescript-${process.platform}-${process.arch}/lib/tsc`;
    const flags = words('--strict --exactOptionalPropertyTypes --module nodenext --types node');
    const typeRoots = ['--target', 'es2022', '--typeRoots', join(ROOT, 'node_modules/@types')];
    const args = [...flags, ...typeRoots, 'program.ts'];
    await good('its types', join(ROOT, 'node_modules', tsc), args);
    const output = await good('a program', process.execPath, ['program.js']);
    t.equal(output, 'works\n');
  });
}
