// Goal: a server that is closed answers what it accepted, refuses what comes later in the words of
// the protocol, flushes, and is bounded in time. Method: a backend that waits for the test.

import net from 'node:net';
import { BufferBackend, NbdServer } from 'nbd-server-ts';
import t from 'tap';
import { ManualClock } from './support/manual-clock.ts';
import { HeldBackend, settle, startServer, transmitting, until } from './support/test-server.ts';

const READ = 0;
const WRITE = 1;

void t.test('requests in flight are answered, later ones get ESHUTDOWN', async (t) => {
  const backend = new HeldBackend();
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const client = await transmitting(server);
  client.request({ command: WRITE, cookie: 1, length: 512, data: new Uint8Array(512) });
  const write = await backend.nextCall();
  const closing = server.server.close();
  client.request({ command: READ, cookie: 2, length: 512 });
  t.match(await client.simpleReply(512), { errno: 108, cookie: '0000000000000002' });
  client.request({ command: WRITE, cookie: 3, length: 512, data: new Uint8Array(512) });
  t.match(await client.simpleReply(), { errno: 108, cookie: '0000000000000003' });
  write.finish();
  t.match(await client.simpleReply(), { errno: 0, cookie: '0000000000000001' });
  t.equal((await client.closed()).length, 0);
  const flush = await backend.nextCall();
  t.equal(flush.name, 'flush', 'the backend is flushed at the end');
  flush.finish();
  t.same(await closing, { cutConnections: 0 });
});

void t.test('idle clients are closed at once, and nobody can come', async (t) => {
  const server = await startServer(t);
  const idle = await transmitting(server);
  t.same(await server.server.close(), { cutConnections: 0 });
  await idle.closed();
  await t.rejects(server.connect());
  await t.rejects(server.server.listen({ path: server.path }), { code: 'ERR_NBD_CLOSED' });
});

void t.test('clients in the handshake are told, and do not hold it up', async (t) => {
  const clock = new ManualClock();
  const server = await startServer(t, { clock, limits: { lingerMs: 100 } });
  const asking = await server.connect();
  await asking.greet();
  const silent = await server.connect();
  await silent.greet();
  await settle(20);
  const closing = server.server.close({ drainMs: 60_000 });
  const [reply] = await asking.go();
  t.equal(reply?.type, 0x80000007, 'ERR_SHUTDOWN');
  clock.advance(100);
  await silent.closed();
  await asking.closed();
  t.same(await closing, { cutConnections: 0 });
});

void t.test('a payload that is on its way is still taken', async (t) => {
  const bytes = new Uint8Array(4096);
  const server = await startServer(t, {
    exports: [{ name: '', backend: new BufferBackend(bytes) }],
  });
  const client = await transmitting(server);
  client.request({ command: WRITE, length: 2048, data: new Uint8Array(2000).fill(7) });
  await settle(20);
  const closing = server.server.close();
  await settle();
  client.send(new Uint8Array(48).fill(7));
  t.equal((await client.simpleReply()).errno, 0);
  t.equal(bytes[2047], 7);
  t.same(await closing, { cutConnections: 0 });
});

void t.test('what does not end in time is cut', async (t) => {
  const clock = new ManualClock();
  const backend = new HeldBackend();
  const server = await startServer(t, { clock, exports: [{ name: '', backend }] });
  const client = await transmitting(server);
  client.request({ command: READ, length: 512 });
  const read = await backend.nextCall();
  const closing = server.server.close({ drainMs: 1000 });
  clock.advance(999);
  await settle();
  t.equal(server.server.connections, 1);
  clock.advance(1);
  (await backend.nextCall()).finish();
  t.same(await closing, { cutConnections: 1 });
  await client.closed();
  read.finish();
  await until(() => server.server.connections === 0, 'the late call is taken in silence');
});

void t.test('a second close can be quicker', async (t) => {
  const clock = new ManualClock();
  const backend = new HeldBackend();
  const server = await startServer(t, { clock, exports: [{ name: '', backend }] });
  const client = await transmitting(server);
  client.request({ command: READ, length: 512 });
  await backend.nextCall();
  const first = server.server.close({ drainMs: 60_000 });
  const second = server.server.close({ drainMs: 0 });
  clock.advance(0);
  (await backend.nextCall()).finish();
  t.same(await first, { cutConnections: 1 });
  t.same(await second, { cutConnections: 1 });
});

void t.test('a failed last flush is told to the owner', async (t) => {
  const backend = Object.assign(new BufferBackend(new Uint8Array(512)), {
    flush: () => {
      throw new Error('no more disk');
    },
  });
  const server = new NbdServer({ exports: [{ name: '', backend }] });
  await server.listen({ port: 0 });
  await t.rejects(server.close(), /no more disk/);
});

void t.test('one client on a stream of its own', async (t) => {
  const server = new NbdServer({
    exports: [{ name: '', backend: new BufferBackend(Buffer.from('over a pair')) }],
  });
  const pair = net.createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => pair.listen({ host: '127.0.0.1', port: 0 }, resolve));
  const { port } = pair.address() as net.AddressInfo;
  const served = new Promise<void>((resolve) => {
    pair.once('connection', (socket) => void server.accept(socket, 'pair').then(resolve));
  });
  const { RawClient } = await import('./support/raw-client.ts');
  const client = await RawClient.connect({ host: '127.0.0.1', port });
  await client.greet();
  await client.go();
  client.request({ command: READ, length: 11 });
  t.equal((await client.simpleReply(11)).data.toString(), 'over a pair');
  client.request({ command: 2 });
  await served;
  await client.closed();
  pair.close();
});
