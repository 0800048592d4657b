// Goal: the client over a real Unix socket: traffic, the end of the connection from both sides, and
// clear errors when there is none. Method: a small server on node:net in a temporary folder.
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  connectXenStore,
  openUnixSocket,
  XENBUS_DEVICE_PATHS,
  XENSTORED_SOCKET_PATHS,
  XenStoreClosedError,
  XenStoreConnectError,
} from 'xenstore-client';
import { TinyXenstored } from './tiny-xenstored.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenstore-client-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let lastSocket = 0;

function freshPath(): string {
  lastSocket += 1;
  return join(folder, `socket${lastSocket}`);
}

void t.test('reads, writes, watches and waits over a socket', async (t) => {
  const path = freshPath();
  const server = new TinyXenstored();
  await server.listen(path);
  const client = await connectXenStore({ path });
  await client.write('/a', 'one');
  t.equal(await client.read('/a'), 'one');
  await t.rejects(client.read('/b'), { code: 'ENOENT', path: '/b' });
  const other = await connectXenStore({ path });
  const waiting = other.waitFor('/state', (state) => state === '4');
  const values = Array.from({ length: 300 }, (_, index) => `${index}`.repeat(20));
  await Promise.all(values.map((value, index) => client.write(`/n/${index}`, value)));
  const read = await Promise.all(values.map((_, index) => other.read(`/n/${index}`)));
  t.strictSame(read, values, 'many requests at once');
  await client.write('/state', '1');
  await client.write('/state', '4');
  t.equal(await waiting, '4');
  await other.close();
  await client.close();
  await server.close();
});

void t.test('the server goes away', async (t) => {
  const path = freshPath();
  const server = new TinyXenstored();
  await server.listen(path);
  const client = await connectXenStore({ path });
  const events = await client.watchEvents('/a');
  t.equal((await events.next()).value, '/a');
  const waiting = events.next();
  server.dropConnections();
  await t.rejects(waiting, XenStoreClosedError);
  t.match(await client.closed, { code: 'CLOSED', message: /ended\.$/ });
  await t.rejects(client.read('/a'), XenStoreClosedError);
  await client.close();
  await server.close();
});

void t.test('a server that ends the connection before the client starts', async (t) => {
  const path = freshPath();
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const transport = await openUnixSocket(path);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const error = await new Promise((resolve) => transport.start({ onData() {}, onClose: resolve }));
  t.equal(error, undefined);
  transport.send(new Uint8Array(16));
  transport.close();
  await new Promise<void>((resolve) => server.close(() => resolve()));
});

void t.test('closing frees the connection', async (t) => {
  const path = freshPath();
  const server = new TinyXenstored();
  await server.listen(path);
  const client = await connectXenStore({ path });
  await client.write('/a', 'x');
  t.equal(server.connectionCount, 1);
  const pending = client.read('/a').catch((error: unknown) => error);
  await client.close();
  t.ok((await pending) instanceof XenStoreClosedError);
  t.equal(await client.closed, undefined);
  await server.close();
});

void t.test('no connection: the error names the place and what to do', async (t) => {
  const missing = join(folder, 'missing');
  await t.rejects(connectXenStore({ path: missing }), {
    name: 'XenStoreConnectError',
    code: 'CONNECT',
    systemCode: 'ENOENT',
    message: new RegExp(`${missing}: there is no such socket\\. Is xenstored running`),
  });
  const path = freshPath();
  const server = new TinyXenstored();
  await server.listen(path);
  await server.close();
  t.notOk(existsSync(path));
  if (process.getuid?.() !== 0) {
    await server.listen(path);
    chmodSync(path, 0);
    await t.rejects(openUnixSocket(path), { systemCode: 'EACCES', message: /run as root/ });
    await server.close();
  }
  const file = join(folder, 'file');
  writeFileSync(file, '');
  await t.rejects(openUnixSocket(file), { systemCode: 'ECONNREFUSED', message: /nobody listens/ });
});

const places = [...XENSTORED_SOCKET_PATHS, ...XENBUS_DEVICE_PATHS];
const skip = places.some((place) => existsSync(place)) ? 'this machine has a XenStore' : false;
void t.test('no XenStore at all: the error names every place', { skip }, async (t) => {
  const error = await connectXenStore().catch((error: unknown) => error);
  t.ok(error instanceof XenStoreConnectError);
  for (const place of places) t.match((error as Error).message, place);
});
