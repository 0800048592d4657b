// Goal: several exports, their names and what is announced for them; a disk that grows. Method: raw
// handshakes against one server.

import { type BlockBackend, BufferBackend, NbdServer, SparseMemoryBackend } from 'nbd-server-ts';
import t from 'tap';
import { hexNumber, hexText } from './support/hex.ts';
import type { RawClient } from './support/raw-client.ts';
import { startServer } from './support/test-server.ts';

async function sizeAndFlags(client: RawClient, name: string): Promise<[number, number]> {
  const length = hexNumber(name.length, 4);
  client.option(6, `${length} ${hexText(name)} 0000`);
  const replies = await client.optionReplies();
  const info = replies.find((reply) => reply.type === 3);
  if (info === undefined) throw new Error(`No INFO, but ${replies[0]?.type}`);
  return [Number(info.data.readBigUInt64BE(2)), info.data.readUInt16BE(10)];
}

void t.test('what a backend can do is announced', async (t) => {
  const reader: BlockBackend = { sizeBytes: 4096, read: () => {} };
  const writer: BlockBackend = { ...reader, write: () => {} };
  const rows: readonly (readonly [string, BlockBackend, number])[] = [
    ['reader', reader, 0x0103],
    ['writer', writer, 0x0941],
    ['flusher', { ...writer, flush: () => {} }, 0x094d],
    ['trimmer', { ...writer, trim: () => {} }, 0x0961],
    ['cacher', { ...writer, cache: () => {} }, 0x0d41],
    ['locked', { ...writer, isReadOnly: true }, 0x0103],
    ['claims', { ...reader, isReadOnly: false }, 0x0103],
    ['alone', { ...writer, canMultiConn: false }, 0x0841],
    ['spinning', { ...writer, isRotational: true }, 0x0951],
  ];
  const server = await startServer(t, {
    exports: [
      ...rows.map(([name, backend]) => ({ name, backend })),
      { name: 'forced', backend: writer, isReadOnly: true },
    ],
  });
  const client = await server.connect();
  await client.greet();
  for (const [name, , flags] of rows) {
    t.same(await sizeAndFlags(client, name), [4096, flags], name);
  }
  t.same(await sizeAndFlags(client, 'forced'), [4096, 0x0103], 'read-only by configuration');
});

void t.test('names', async (t) => {
  const backend = new BufferBackend(new Uint8Array(512));
  const server = await startServer(t, {
    exports: [
      { name: 'first', backend },
      { name: 'größe/ü', backend, description: 'with description' },
    ],
  });
  t.throws(() => server.server.addExport({ name: 'first', backend }), {
    code: 'ERR_NBD_EXPORT_EXISTS',
  });
  t.throws(() => server.server.addExport({ name: 'a\0b', backend }), /no NUL/);
  t.throws(() => server.server.addExport({ name: 'x'.repeat(4097), backend }), /at most 4096/);
  t.throws(() => server.server.addExport({ name: 'y', backend, description: 'ü'.repeat(2049) }));
  t.throws(() =>
    server.server.addExport({ name: 'z', backend: { sizeBytes: -1, read: () => {} } }),
  );
  const client = await server.connect();
  await client.greet();
  client.option(3);
  const names = (await client.optionReplies()).slice(0, -1).map((reply) => {
    const length = reply.data.readUInt32BE(0);
    return [
      reply.data.subarray(4, 4 + length).toString(),
      reply.data.subarray(4 + length).toString(),
    ];
  });
  t.same(names, [
    ['first', ''],
    ['größe/ü', 'with description'],
  ]);
  server.server.addExport({ name: '', backend: new SparseMemoryBackend(2 ** 40) });
  t.same((await sizeAndFlags(client, ''))[0], 2 ** 40, 'an export without a name is the default');
  t.equal(server.server.removeExport(''), true);
  t.equal(server.server.removeExport(''), false);
  t.same((await sizeAndFlags(client, ''))[0], 512, 'then the first one is');
});

void t.test('a disk that grows is larger for new clients', async (t) => {
  const backend = { sizeBytes: 1024, read: () => {} };
  const server = await startServer(t, { exports: [{ name: '', backend }] });
  const old = await server.connect();
  await old.greet();
  await old.go();
  backend.sizeBytes = 2048;
  const young = await server.connect();
  await young.greet();
  t.equal((await sizeAndFlags(young, ''))[0], 2048);
  await young.go();
  for (const [client, errno] of [
    [old, 22],
    [young, 0],
  ] as const) {
    client.request({ command: 0, offset: 1024, length: 1 });
    t.equal((await client.simpleReply(1)).errno, errno);
  }
  backend.sizeBytes = Number.NaN;
  const late = await server.connect();
  await late.greet();
  t.match(await late.go(), [{ type: 0x80000006 }], 'an impossible size takes the export away');
  t.match(server.log.at(-2)?.message, /The export "" cannot be offered/);
});

void t.test('listing can be switched off, and structured replies too', async (t) => {
  const server = await startServer(t, { canList: false, structuredReplies: false });
  const client = await server.connect();
  await client.greet();
  client.option(3);
  t.match(await client.optionReplies(), [{ type: 0x80000002 }]);
  for (const option of [8, 11]) {
    client.option(option);
    t.match(await client.optionReplies(), [{ type: 0x80000001 }], `option ${option}`);
  }
});

void t.test('a server without exports', async (t) => {
  const server = new NbdServer();
  t.equal(server.connections, 0);
  t.same(await server.close(), { cutConnections: 0 });
});
