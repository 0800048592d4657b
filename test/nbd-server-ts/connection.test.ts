// Goal: clients that leave, dawdle or break the protocol cost nothing but their own connection.
// Method: raw bytes; time is a clock that the test moves.

import { BufferBackend } from 'nbd-server-ts';
import t from 'tap';
import { hex, hexFill } from './support/hex.ts';
import { ManualClock } from './support/manual-clock.ts';
import { HeldBackend, settle, startServer, transmitting, until } from './support/test-server.ts';

const READ = 0;
const WRITE = 1;

const handshake = hex('00000003 49484156454f5054 00000007 00000006 00000000 0000');
const write = hex(
  `25609513 0000 0001 0000000000000001 0000000000000000 00000010 ${hexFill('77', 16)}`,
);

void t.test('a client that leaves after any byte', async (t) => {
  const server = await startServer(t);
  const dialogue = Buffer.concat([handshake, write]);
  for (const how of ['end', 'destroy'] as const) {
    for (let count = 0; count <= dialogue.length; count += 1) {
      const client = await server.connect();
      await client.sendAll(dialogue.subarray(0, count));
      if (how === 'end') {
        client.end();
        await client.closed();
      }
      client.destroy();
    }
  }
  await until(() => server.server.connections === 0, 'all connections are gone');
  const client = await transmitting(server);
  client.request({ command: READ, length: 1 });
  t.equal((await client.simpleReply(1)).errno, 0, 'the server lives');
});

void t.test('a client that is killed with requests in flight', async (t) => {
  const backend = new HeldBackend();
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const client = await transmitting(server);
  for (let cookie = 0; cookie < 1000; cookie += 1) {
    client.request({ command: READ, cookie, length: 4096 });
  }
  await backend.waitForCalls(64);
  client.destroy();
  await settle();
  t.equal(server.server.connections, 1, 'it counts until its requests are done');
  t.equal(backend.calls.length, 64, 'no more were started');
  for (const call of backend.calls) call.finish();
  await until(() => server.server.connections === 0, 'the connection is gone');
});

void t.test('a client that vanishes behind DISC with replies under way', async (t) => {
  // Found by the fuzzer: the callbacks of failed writes came twice and the count went below zero.
  const server = await startServer(t);
  const refused = '25609513 0000 0009 0000000000000001 0000000000000000 00000000';
  const disc = '25609513 0000 0002 0000000000000000 0000000000000000 00000000';
  const bytes = Buffer.concat([handshake, hex(`${refused} ${refused} ${refused} ${disc}`)]);
  for (let count = 0; count < 20; count += 1) {
    const client = await server.connect();
    client.send(bytes);
    client.destroy();
  }
  await until(() => server.server.connections === 0, 'all connections are gone');
});

void t.test('garbage', async (t) => {
  const server = await startServer(t);
  const rows: readonly (readonly [string, RegExp])[] = [
    [hexFill('00', 20), /option|magic/],
    [hexFill('ff', 64), /unknown client flags 0xffffffff/],
    ["'GET / HTTP/1.1' 0d0a0d0a", /unknown client flags 0x47455420/],
    ['00000003 49484156454f5054 00000003 ffffffff', /4294967295 bytes of data/],
  ];
  for (const [bytes, reason] of rows) {
    const client = await server.connect();
    client.send(bytes);
    await client.closed();
    t.match(server.log.at(-1)?.message, reason);
  }
  const client = await transmitting(server);
  client.send(hexFill('00', 28));
  await client.closed();
  t.match(server.log.at(-1)?.message, /wrong magic/);
  await until(() => server.server.connections === 0, 'all connections are gone');
});

void t.test('bytes that come behind the ones that ended the handshake', async (t) => {
  // Found by the fuzzer: they reached the handshake that was over, and that brought the server
  // down.
  const server = await startServer(t);
  const wrongMagic = `00000003 ${hexFill('11', 16)}`;
  const abort = '00000003 49484156454f5054 00000002 00000000';
  for (const end of [wrongMagic, abort]) {
    for (let count = 0; count < 20; count += 1) {
      const client = await server.connect();
      await client.sendAll(end);
      for (let more = 0; more < 5; more += 1) await client.sendAll(hexFill('22', 20));
      client.destroy();
    }
  }
  await until(() => server.server.connections === 0, 'all connections are gone');
  t.notOk(server.log.some((line) => line.level === 'error'));
});

void t.test('each kind of trouble is told once per connection', async (t) => {
  const server = await startServer(t);
  const client = await server.connect();
  await client.greet();
  for (let count = 0; count < 10; count += 1) {
    client.option(3, '00');
    await client.optionReplies();
  }
  t.equal(server.log.length, 1);
});

void t.test('the handshake has its time', async (t) => {
  const clock = new ManualClock();
  const server = await startServer(t, { clock, limits: { handshakeMs: 1000 } });
  const silent = await server.connect();
  await silent.greet();
  const slow = await server.connect();
  await slow.greet();
  const busy = await transmitting(server);
  clock.advance(999);
  slow.option(3);
  t.equal((await slow.optionReplies()).length, 2, 'one millisecond is left');
  clock.advance(1);
  await silent.closed();
  await slow.closed();
  t.match(server.log.map((line) => line.message).join('\n'), /handshake within 1000 ms/);
  busy.request({ command: READ, length: 1 });
  t.equal((await busy.simpleReply(1)).errno, 0, 'transmission has no such limit');
});

void t.test('connections at the limit', async (t) => {
  const server = await startServer(t, { limits: { connections: 3 } });
  const clients = [];
  for (let count = 0; count < 3; count += 1) clients.push(await transmitting(server));
  t.equal(server.server.connections, 3);
  const refused = await server.connect();
  t.equal((await refused.closed()).length, 0, 'the fourth is closed without a greeting');
  t.match(server.log.at(-1), { level: 'warn', message: /there are 3 connections/ });
  clients[0]?.destroy();
  await until(() => server.server.connections === 2, 'there is room');
  const client = await transmitting(server);
  client.request({ command: READ, length: 1 });
  t.equal((await client.simpleReply(1)).errno, 0);
});

void t.test('requests per connection at the limit', async (t) => {
  const backend = new HeldBackend();
  const server = await startServer(t, {
    exports: [{ name: '', backend }],
    limits: { requestsPerConnection: 4 },
  });
  const client = await transmitting(server);
  for (let cookie = 1; cookie <= 6; cookie += 1)
    client.request({ command: READ, cookie, length: 1 });
  await backend.waitForCalls(4);
  await settle(20);
  t.equal(backend.calls.length, 4, 'the fifth waits');
  for (let cookie = 1; cookie <= 6; cookie += 1) {
    (await backend.nextCall()).finish();
    await client.simpleReply(1);
  }
});

void t.test('bytes per connection at the limit', async (t) => {
  for (const [lengths, started] of [
    [[600, 400], 2],
    [[600, 401], 1],
    [[5000], 1],
    [[5000, 1], 1],
  ] as const) {
    const backend = new HeldBackend();
    const server = await startServer(t, {
      exports: [{ name: '', backend }],
      limits: { bytesPerConnection: 1000 },
    });
    const client = await transmitting(server);
    for (const length of lengths) client.request({ command: READ, length });
    await backend.waitForCalls(started);
    await settle(20);
    t.equal(backend.calls.length, started, lengths.join(' and '));
    for (const length of lengths) {
      (await backend.nextCall()).finish();
      await client.simpleReply(length);
    }
  }
});

void t.test('bytes of all connections at the limit, and the reserve of each', async (t) => {
  const backend = new HeldBackend();
  const server = await startServer(t, {
    exports: [{ name: '', backend }],
    limits: { bytesTotal: 1000, reservedBytesPerConnection: 100 },
  });
  const one = await transmitting(server);
  const two = await transmitting(server);
  one.request({ command: READ, length: 1000 });
  await backend.waitForCalls(1);
  two.request({ command: READ, length: 100 });
  await backend.waitForCalls(2);
  t.pass('a small request has the reserve of its connection');
  two.request({ command: READ, length: 101 });
  await settle(20);
  t.equal(backend.calls.length, 2, 'a larger one waits for the common budget');
  backend.calls[0]?.finish();
  await one.simpleReply(1000);
  await backend.waitForCalls(3);
  t.equal(backend.calls[2]?.lengthBytes, 101);
  for (const call of backend.calls.slice(1)) call.finish();
  await two.simpleReply(100);
  await two.simpleReply(101);
});

void t.test('who holds the budget and does not move is closed when others wait', async (t) => {
  const clock = new ManualClock();
  const backend = new BufferBackend(new Uint8Array(8192));
  const server = await startServer(t, {
    clock,
    exports: [{ name: '', backend }],
    limits: { bytesTotal: 1000, reservedBytesPerConnection: 100, stallMs: 5000 },
  });
  const stuck = await transmitting(server);
  stuck.request({ command: WRITE, length: 1000 });
  await stuck.sendAll(new Uint8Array(999));
  await settle(20);
  clock.advance(60_000);
  const other = await transmitting(server);
  t.equal(server.server.connections, 2, 'nobody waits, nobody is closed');
  other.request({ command: READ, length: 1000 });
  await settle(20);
  t.equal(other.pendingBytes, 0);
  clock.advance(4999);
  await settle();
  t.equal(server.server.connections, 2);
  clock.advance(1);
  t.equal((await other.simpleReply(1000)).errno, 0);
  await stuck.closed();
  t.match(server.log.at(-1)?.message, /did not move for 5 s/);
});

void t.test('a reader that does not read stops its own requests only', async (t) => {
  const size = 256 * 1024;
  const backend = new HeldBackend(size);
  backend.releaseAll();
  const server = await startServer(t, {
    exports: [{ name: '', backend }],
    limits: { bytesPerConnection: 4 * size },
  });
  const slow = await transmitting(server);
  slow.pause();
  for (let cookie = 0; cookie < 40; cookie += 1) {
    slow.request({ command: READ, cookie, length: size });
  }
  await settle(50);
  const heldBytes = backend.readBytes;
  t.ok(heldBytes < 40 * size, `only ${heldBytes} bytes were read ahead of it`);
  const other = await transmitting(server);
  other.request({ command: READ, length: size });
  t.equal((await other.simpleReply(size)).errno, 0);
  slow.resume();
  for (let cookie = 0; cookie < 40; cookie += 1) await slow.simpleReply(size);
});
