// Goal: requests are answered as the specification says, in each of the three reply forms, and FUA
// and FLUSH are answered only behind the backend's flush. Method: raw bytes against a server whose
// backend waits for the test.

import { BufferBackend, NbdError } from 'nbd-server-ts';
import t from 'tap';
import { hex, hexFill, toHex } from './support/hex.ts';
import { HeldBackend, settle, startServer, transmitting } from './support/test-server.ts';

const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const FUA = 1;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;

const bytes = Uint8Array.from({ length: 4096 }, (_, index) => index % 251);
const disk = { name: 'disk', backend: new BufferBackend(bytes) };

void t.test('simple replies, byte for byte', async (t) => {
  const client = await transmitting(await startServer(t, { exports: [disk] }));
  client.send('25609513 0000 0000 00000000000000ab 0000000000000001 00000003');
  t.equal(toHex(await client.receive(19)), '674466980000000000000000000000ab010203');
  client.send("25609513 0000 0001 fffffffffffffffe 0000000000000001 00000004 'abcd'");
  t.equal(toHex(await client.receive(16)), '6744669800000000fffffffffffffffe');
  t.equal(Buffer.from(bytes.subarray(0, 6)).toString('latin1'), '\0abcd\u0005');
  client.send('25609513 0000 0003 0000000000000002 0000000000000000 00000000');
  t.equal(toHex(await client.receive(16)), '67446698000000000000000000000002');
  client.send('25609513 0000 0000 0000000000000003 0000000000000fff 00000002');
  t.equal(toHex(await client.receive(16)), '67446698000000160000000000000003', 'past the end');
  client.send('25609513 0000 0000 0000000000000004 0000000000001000 00000000');
  t.equal(toHex(await client.receive(16)), '67446698000000000000000000000004', 'length 0');
  client.send('25609513 0000 0002 0000000000000000 0000000000000000 00000000');
  t.equal((await client.closed()).length, 0, 'DISC has no reply');
});

void t.test('structured replies, byte for byte', async (t) => {
  const server = await startServer(t, {
    exports: [{ name: '', backend: new BufferBackend(new Uint8Array(4096).fill(0x55)) }],
  });
  const client = await transmitting(server, { structured: true });
  client.send('25609513 0004 0000 00000000000000ab 0000000000000100 00000002');
  t.equal(
    toHex(await client.receive(30)),
    '668e33ef0001000100000000000000ab0000000a00000000000001005555',
  );
  client.send('25609513 0000 0000 00000000000000ac 0000000000000100 00000000');
  t.equal(
    toHex(await client.receive(20)),
    '668e33ef0001000000000000000000ac00000000',
    'a READ of nothing is NONE',
  );
  client.send('25609513 0000 0000 00000000000000ad 0000000000001000 00000001');
  const [error] = await client.chunks();
  t.match(error, { form: 'structured', flags: 1, type: 0x8001, errno: 22 });
  const text = error?.payload.subarray(6).toString() ?? '';
  t.equal(error?.payload.readUInt16BE(4), text.length);
  t.match(text, /^NBD_CMD_READ past the end/);
  client.send('25609513 0000 0003 00000000000000ae 0000000000000000 00000000');
  t.equal(toHex(await client.receive(16)), '674466980000000000000000000000ae');
});

void t.test('extended replies, byte for byte', async (t) => {
  const server = await startServer(t, {
    exports: [{ name: '', backend: new BufferBackend(new Uint8Array(4096).fill(0x55)) }],
  });
  const client = await transmitting(server, { extended: true });
  client.send('21e41c71 0000 0000 00000000000000ab 0000000000000100 0000000000000002');
  t.equal(
    toHex(await client.receive(42)),
    '6e8a278c0001000100000000000000ab0000000000000100000000000000000a00000000000001005555',
  );
  client.send("21e41c71 0020 0001 00000000000000ac 0000000000000200 0000000000000002 'hi'");
  t.equal(
    toHex(await client.receive(32)),
    '6e8a278c0001000000000000000000ac00000000000002000000000000000000',
  );
  client.send('21e41c71 0000 0000 00000000000000ad ffffffffffffffff 0000000000000001');
  const [error] = await client.chunks();
  t.match(error, { form: 'extended', type: 0x8001, errno: 22, offset: 'ffffffffffffffff' });
  client.send('21e41c71 0000 0006 00000000000000ae 0000000000000000 0000000100000000');
  t.match(await client.chunks(), [{ type: 0x8001, errno: 28 }], '4 GiB of zeroes do not fit');
  client.send('21e41c71 0020 0007 00000000000000af 0000000000000000 0000000000000004 00000000');
  t.match(await client.chunks(), [{ type: 0x8001, errno: 22 }], 'a payload nobody asked for');
  client.send('21e41c71 0000 0003 00000000000000b0 0000000000000000 0000000000000000');
  t.match(await client.chunks(), [{ type: 0, errno: 0, cookie: '00000000000000b0' }]);
  client.send('25609513 0000 0003 00000000000000b0 0000000000000000 00000000');
  client.send(hexFill('00', 4));
  await client.closed();
  t.match(server.log.at(-1)?.message, /wrong magic/, 'a compact request drops');
});

void t.test('an extended payload over the limit drops', async (t) => {
  const server = await startServer(t);
  const client = await transmitting(server, { extended: true });
  client.extendedRequest({ flags: 0x20, command: WRITE, length: 2n ** 63n });
  await client.closed();
  t.match(server.log.at(-1)?.message, /payload of 9223372036854776000 bytes/);
});

void t.test('block status', async (t) => {
  const extents = [
    { lengthBytes: 512, flags: 0 },
    { lengthBytes: 512, flags: 0 },
    { lengthBytes: 1024, flags: 3 },
    { lengthBytes: 100_000, flags: 0 },
  ];
  const backend = Object.assign(new BufferBackend(new Uint8Array(8192)), {
    allocation: () => extents,
  });
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const compact = await transmitting(server, { structured: true, contexts: true });
  compact.request({ command: BLOCK_STATUS, length: 4096 });
  t.match(
    (await compact.chunks()).map((chunk) => [chunk.flags, chunk.type, toHex(chunk.payload)]),
    [[1, 5, '0000000100000400000000000000040000000003000008000000' + '0000']],
    'equal neighbours are joined and the last extent is cut',
  );
  compact.request({ command: BLOCK_STATUS, length: 4096, flags: REQ_ONE });
  t.equal(toHex((await compact.chunks())[0]?.payload ?? hex('')), '000000010000040000000000');
  const extended = await transmitting(server, { extended: true, contexts: true });
  extended.extendedRequest({ command: BLOCK_STATUS, length: 4096, flags: REQ_ONE });
  t.match(
    (await extended.chunks()).map((chunk) => [chunk.type, toHex(chunk.payload)]),
    [[6, '000000010000000100000000000004000000000000000000']],
  );
  const without = await transmitting(server, { structured: true });
  without.request({ command: BLOCK_STATUS, length: 4096 });
  t.match(await without.chunks(), [{ errno: 22 }], 'without a context');
});

void t.test('extents at the limit of an answer', async (t) => {
  const limit = 8192;
  let count = 0;
  const backend = Object.assign(new BufferBackend(new Uint8Array(limit + 2)), {
    allocation: () =>
      Array.from({ length: count }, (_, index) => ({ lengthBytes: 1, flags: index % 2 })),
  });
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const client = await transmitting(server, { structured: true, contexts: true });
  for (const offered of [limit - 1, limit, limit + 1]) {
    count = offered;
    client.request({ command: BLOCK_STATUS, length: limit + 2 });
    const [chunk] = await client.chunks();
    t.equal(((chunk?.payload.length ?? 0) - 4) / 8, Math.min(offered, limit), `${offered} extents`);
  }
});

void t.test('holes are sent as holes, unless DF forbids it', async (t) => {
  const size = 65536;
  const disk = new Uint8Array(size).fill(0x11);
  disk.fill(0, 8192, 16384);
  disk.fill(0, 20000, 20100);
  const zero = (lengthBytes: number): object => ({ lengthBytes, flags: 2 });
  const data = (lengthBytes: number): object => ({ lengthBytes, flags: 0 });
  let known = [data(8192), zero(8192), data(3616), zero(100), data(45436)];
  const backend = Object.assign(new BufferBackend(disk), { allocation: () => known as never });
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  for (const extended of [false, true]) {
    const client = await transmitting(server, extended ? { extended } : { structured: true });
    const read = (flags: number): void => {
      if (extended) client.extendedRequest({ command: READ, flags, length: size });
      else client.request({ command: READ, flags, length: size });
    };
    read(0);
    const chunks = await client.chunks();
    t.same(
      chunks.map((chunk) => [chunk.flags, chunk.type, Number(chunk.payload.readBigUInt64BE(0))]),
      [
        [0, 1, 0],
        [0, 2, 8192],
        [1, 1, 16384],
      ],
      'a small hole is data',
    );
    t.equal(toHex(chunks[1]?.payload.subarray(8) ?? hex('')), '00002000');
    const last = chunks[2]?.payload.subarray(8) ?? Buffer.alloc(0);
    t.ok(last.equals(disk.subarray(16384)));
    read(DF);
    const [whole, ...more] = await client.chunks();
    t.equal(more.length, 0, 'DF gives one chunk');
    t.ok(whole?.payload.subarray(8).equals(disk));
  }
  known = [zero(4096)];
  const client = await transmitting(server, { structured: true });
  client.request({ command: READ, length: size });
  t.equal((await client.chunks()).length, 1, 'what the backend does not know all of is read whole');
  const plain = await transmitting(server);
  plain.request({ command: READ, length: size });
  t.ok((await plain.simpleReply(size)).data.equals(disk));
});

void t.test('replies come in the order in which the backend finishes', async (t) => {
  const backend = new HeldBackend();
  const client = await transmitting(await startServer(t, { exports: [{ name: '', backend }] }));
  client.request({ command: READ, cookie: 1, offset: 0, length: 512 });
  client.request({ command: READ, cookie: 2, offset: 512, length: 512 });
  await backend.waitForCalls(2);
  backend.calls[1]?.finish();
  t.equal((await client.simpleReply(512)).cookie, '0000000000000002');
  backend.calls[0]?.finish();
  t.equal((await client.simpleReply(512)).cookie, '0000000000000001');
});

void t.test('FUA is answered behind write and flush', async (t) => {
  const backend = new HeldBackend();
  const client = await transmitting(await startServer(t, { exports: [{ name: '', backend }] }));
  for (const command of [WRITE, TRIM, WRITE_ZEROES]) {
    const data = command === WRITE ? new Uint8Array(512) : new Uint8Array(0);
    client.request({ command, flags: FUA, length: 512, data });
    const work = await backend.nextCall();
    t.equal(work.name, command === TRIM ? 'trim' : 'write');
    await settle();
    t.equal(backend.calls.length, 0, 'no flush before the write is done');
    work.finish();
    const flush = await backend.nextCall();
    t.equal(flush.name, 'flush');
    await settle();
    t.equal(client.pendingBytes, 0, 'no reply before the flush is done');
    flush.finish();
    t.equal((await client.simpleReply()).errno, 0);
  }
  client.request({ command: WRITE, flags: FUA, length: 512, data: new Uint8Array(512) });
  (await backend.nextCall()).finish();
  (await backend.nextCall()).finish(new Error('the disk is gone'));
  t.equal((await client.simpleReply()).errno, 5, 'a failed flush fails the write');
  client.request({ command: READ, flags: FUA, length: 512 });
  (await backend.nextCall()).finish();
  t.equal((await client.simpleReply(512)).errno, 0, 'FUA on READ flushes nothing');
});

void t.test('FLUSH requests share flushes, but none that began before them', async (t) => {
  const backend = new HeldBackend();
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const one = await transmitting(server);
  const other = await transmitting(server);
  one.request({ command: FLUSH, cookie: 1 });
  const first = await backend.nextCall();
  one.request({ command: FLUSH, cookie: 2 });
  other.request({ command: FLUSH, cookie: 3 });
  await settle();
  t.equal(backend.calls.length, 0, 'one flush at a time');
  first.finish();
  t.equal((await one.simpleReply()).cookie, '0000000000000001');
  const second = await backend.nextCall();
  await settle();
  t.equal(one.pendingBytes + other.pendingBytes, 0);
  second.finish();
  t.equal((await one.simpleReply()).cookie, '0000000000000002');
  t.equal((await other.simpleReply()).cookie, '0000000000000003');
  await settle();
  t.equal(backend.calls.length, 0);
});

void t.test('a failing backend', async (t) => {
  const backend = new HeldBackend();
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const client = await transmitting(server, { structured: true });
  const failures: readonly (readonly [Error, number, number, RegExp])[] = [
    [new NbdError('ENOSPC', 'The pool is full.'), 28, 0x8001, /^The pool is full\.$/],
    [new NbdError('EIO', 'Bad block.', { offset: 700 }), 5, 0x8002, /^Bad block\.$/],
    [new NbdError('EIO', 'Bad block.', { offset: 1024 }), 5, 0x8001, /^Bad block\.$/],
    [new NbdError('ENOTSUP', 'No.'), 5, 0x8001, /^No\.$/],
    [
      Object.assign(new Error('/secret/path'), { code: 'EDQUOT' }),
      28,
      0x8001,
      /^NBD_CMD_READ failed/,
    ],
    [
      Object.assign(new Error('/secret/path'), { code: 'ENOENT' }),
      5,
      0x8001,
      /^NBD_CMD_READ failed/,
    ],
  ];
  for (const [error, errno, type, text] of failures) {
    client.request({ command: READ, offset: 512, length: 512 });
    (await backend.nextCall()).finish(error);
    const [chunk] = await client.chunks();
    t.match(chunk, { errno, type }, error.message);
    const textBytes = chunk?.payload.readUInt16BE(4) ?? 0;
    t.match(chunk?.payload.subarray(6, 6 + textBytes).toString(), text);
    if (type === 0x8002) t.equal(chunk?.payload.readBigUInt64BE(6 + textBytes), 700n);
  }
  const told = server.log.filter((line) => /failed/.test(line.message));
  t.match(told, [{ level: 'warn', message: /NBD_CMD_READ of 512 bytes at 512 failed: The pool/ }]);
  client.request({ command: WRITE_ZEROES, flags: FAST_ZERO, length: 512 });
  t.match(await client.chunks(), [{ errno: 95 }], 'FAST_ZERO where zeroing is writing');
});

void t.test('a refused WRITE has its payload read away', async (t) => {
  const server = await startServer(t, {
    exports: [{ name: '', backend: new BufferBackend(new Uint8Array(4096)), isReadOnly: true }],
  });
  const client = await transmitting(server);
  // The payload looks like a request: it must not be taken for one.
  const looksLikeRequest = hex('25609513 0000 0002 0000000000000000 0000000000000000 00000000');
  client.request({ command: WRITE, cookie: 5, length: 28, data: looksLikeRequest });
  client.request({ command: READ, cookie: 6, length: 1 });
  t.match(await client.simpleReply(), { errno: 1, cookie: '0000000000000005' });
  t.match(await client.simpleReply(1), { errno: 0, cookie: '0000000000000006' });
  const large = 100 * 1024 * 1024;
  client.request({ command: WRITE, cookie: 7, length: large });
  const chunk = new Uint8Array(1024 * 1024);
  for (let sent = 0; sent < large; sent += chunk.length) await client.sendAll(chunk);
  t.match(await client.simpleReply(), { errno: 1, cookie: '0000000000000007' });
});

void t.test('DF is honoured up to the largest request', async (t) => {
  const server = await startServer(t);
  const client = await transmitting(server, { structured: true });
  client.request({ command: READ, flags: DF, length: 1024 * 1024 });
  const chunks = await client.chunks();
  t.equal(chunks.length, 1);
  t.equal(chunks[0]?.payload.length, 8 + 1024 * 1024);
});

void t.test('DISC and a closed sending side wait for what is in flight', async (t) => {
  for (const how of ['DISC', 'end'] as const) {
    const backend = new HeldBackend();
    const client = await transmitting(await startServer(t, { exports: [{ name: '', backend }] }));
    client.request({ command: WRITE, cookie: 1, length: 512, data: new Uint8Array(512).fill(9) });
    client.request({ command: READ, cookie: 2, length: 512 });
    if (how === 'DISC') client.request({ command: DISC, cookie: 3 });
    else client.end();
    await backend.waitForCalls(2);
    for (const call of backend.calls) call.finish();
    t.equal((await client.simpleReply()).cookie, '0000000000000001', how);
    t.equal((await client.simpleReply(512)).cookie, '0000000000000002', how);
    t.equal((await client.closed()).length, 0, `${how} closes behind the replies`);
  }
});

void t.test('nothing behind DISC is looked at', async (t) => {
  const server = await startServer(t);
  const client = await transmitting(server);
  client.request({ command: DISC });
  client.send(hexFill('ff', 100));
  await client.closed();
  t.notMatch(JSON.stringify(server.log), /dropped/);
});
