// Goal: addresses are opened as asked, or one clear error says what to do. Method: real sockets.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { BufferBackend, NbdServer } from 'nbd-server-ts';
import t, { type Test } from 'tap';
import { RawClient } from './support/raw-client.ts';
import { temporaryDirectory } from './support/test-server.ts';

function makeServer(t: Test): NbdServer {
  const server = new NbdServer({
    exports: [{ name: '', backend: new BufferBackend(new Uint8Array(512)) }],
  });
  t.teardown(() => server.close({ drainMs: 0 }));
  return server;
}

void t.test('TCP', async (t) => {
  const server = makeServer(t);
  const bound = await server.listen({ port: 0 });
  if (bound.kind !== 'tcp') throw new Error(bound.kind);
  t.equal(bound.uri, `nbd://127.0.0.1:${bound.port}/`);
  await (await RawClient.connect({ host: '127.0.0.1', port: bound.port })).greet();
  const second = makeServer(t);
  await t.rejects(second.listen({ port: bound.port }), {
    code: 'ERR_NBD_ADDRESS_IN_USE',
    message: `Another server listens on 127.0.0.1 port ${bound.port}: stop it or choose another address.`,
  });
  await t.rejects(second.listen({ host: '192.0.2.1', port: 0 }), { code: 'ERR_NBD_LISTEN' });
});

void t.test('IPv6', async (t) => {
  const server = makeServer(t);
  const bound = await server.listen({ host: '::1', port: 0 }).catch(() => undefined);
  if (bound?.kind !== 'tcp') {
    t.comment('skipped: this machine has no IPv6');
    return;
  }
  t.equal(bound.uri, `nbd://[::1]:${bound.port}/`);
  await (await RawClient.connect({ host: '::1', port: bound.port })).greet();
});

void t.test('Unix sockets', async (t) => {
  const directory = temporaryDirectory(t);
  const server = makeServer(t);
  const path = join(directory, 'a b');
  const bound = await server.listen({ path });
  t.match(bound, { kind: 'unix', path, uri: `nbd+unix:///?socket=${directory}/a%20b` });
  t.equal(statSync(path).mode & 0o777, 0o600);
  const shared = join(directory, 'shared');
  await server.listen({ path: shared, mode: 0o666 });
  t.equal(statSync(shared).mode & 0o777, 0o666);
  await t.rejects(makeServer(t).listen({ path }), {
    code: 'ERR_NBD_ADDRESS_IN_USE',
    message: `Another server listens on ${path}: stop it or choose another address.`,
  });
  t.ok(existsSync(path), 'the socket of a living server stays');
  const file = join(directory, 'file');
  writeFileSync(file, 'precious');
  await t.rejects(makeServer(t).listen({ path: file }), { code: 'ERR_NBD_NOT_A_SOCKET' });
  t.equal(statSync(file).size, 8, 'a file is not touched');
  await t.rejects(makeServer(t).listen({ path: join(directory, 'no/such') }), {
    code: 'ERR_NBD_LISTEN',
  });
  await server.close();
  t.notOk(existsSync(path), 'a closed server leaves no socket');
});

void t.test('a stale Unix socket is replaced', async (t) => {
  const path = join(temporaryDirectory(t), 's');
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)},
    () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  t.ok(existsSync(path), 'a killed server leaves its socket');
  await makeServer(t).listen({ path });
  await (await RawClient.connect({ path })).greet();
});

void t.test('a descriptor of somebody else', async (t) => {
  const inherited = net.createServer();
  await new Promise<void>((resolve) => inherited.listen({ host: '127.0.0.1', port: 0 }, resolve));
  const { port } = inherited.address() as net.AddressInfo;
  // Node hands sockets to children of its own kind only; systemd hands over the bare descriptor.
  const { fd } = (inherited as unknown as { readonly _handle: { readonly fd: number } })._handle;
  const script = `
    import { BufferBackend, NbdServer } from 'nbd-server-ts';
    const backend = new BufferBackend(new Uint8Array(512));
    await new NbdServer({ exports: [{ name: '', backend }] }).listen({ fd: 3 });
    console.log('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: new URL('../../..', import.meta.url),
    stdio: ['ignore', 'pipe', 'inherit', fd],
  });
  t.teardown(() => child.kill('SIGKILL'));
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  inherited.close();
  await (await RawClient.connect({ host: '127.0.0.1', port })).greet();
});
