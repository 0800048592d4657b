// Goal: the client matches replies by id alone, keeps XenStore's error names, believes nothing that
// breaks the protocol, and never leaves a promise hanging. Method: a scripted server.
import t from 'tap';
import {
  XenStoreClient,
  XenStoreClosedError,
  XenStoreError,
  XenStoreProtocolError,
} from 'xenstore-client';
import { encodeReply, type XsReply, XsType } from 'xenstore-client/wire';
import { ScriptedTransport, settle } from './scripted-transport.ts';

function start(): { server: ScriptedTransport; client: XenStoreClient } {
  const server = new ScriptedTransport();
  return { server, client: new XenStoreClient(server) };
}

function value(text: string): XsReply {
  return { type: XsType.READ, value: Buffer.from(text) };
}

const ok = (type: typeof XsType.WRITE | typeof XsType.MKDIR | typeof XsType.RM): XsReply => ({
  type,
});

void t.test('each operation sends its request and reads its answer', async (t) => {
  const { server, client } = start();
  const run = async <T>(result: Promise<T>, reply: XsReply): Promise<[T, unknown]> => {
    const received = await server.take();
    server.reply(received, reply);
    t.equal(received.txId, 0, 'no transaction');
    return [await result, received.request];
  };
  t.strictSame(await run(client.read('a'), value('4')), ['4', { type: 2, path: 'a' }]);
  t.strictSame(await run(client.read('a'), value('ä€')), ['ä€', { type: 2, path: 'a' }]);
  const octets: XsReply = { type: XsType.READ, value: Uint8Array.of(0, 255) };
  const [bytes] = await run(client.readBytes('a'), octets);
  t.strictSame([...bytes], [0, 255]);
  t.equal((await run(client.read('a'), octets))[0], '\0\ufffd', 'not UTF-8');
  const [, written] = await run(client.write('a', 'ä'), ok(XsType.WRITE));
  t.strictSame(written, { type: 11, path: 'a', value: Uint8Array.of(0xc3, 0xa4) });
  const [, raw] = await run(client.write('a', Uint8Array.of(0, 1)), ok(XsType.WRITE));
  t.strictSame(raw, { type: 11, path: 'a', value: Uint8Array.of(0, 1) });
  t.strictSame(await run(client.mkdir('a'), ok(XsType.MKDIR)), [
    undefined,
    { type: 12, path: 'a' },
  ]);
  t.strictSame(await run(client.rm('a'), ok(XsType.RM)), [undefined, { type: 13, path: 'a' }]);
  const names: XsReply = { type: XsType.DIRECTORY, names: ['b', 'c'] };
  t.strictSame(await run(client.directory('a'), names), [['b', 'c'], { type: 1, path: 'a' }]);
  const permissions = [
    { domid: 0, access: 'none' } as const,
    { domid: 5, access: 'read' } as const,
  ];
  t.strictSame(await run(client.getPermissions('a'), { type: XsType.GET_PERMS, permissions }), [
    permissions,
    { type: 3, path: 'a' },
  ]);
  t.strictSame(await run(client.setPermissions('a', permissions), { type: XsType.SET_PERMS }), [
    undefined,
    { type: 14, path: 'a', permissions },
  ]);
  const home: XsReply = { type: XsType.GET_DOMAIN_PATH, path: '/local/domain/5' };
  t.strictSame(await run(client.getDomainPath(5), home), [
    '/local/domain/5',
    { type: 10, domid: 5 },
  ]);
  const introduced: XsReply = { type: XsType.IS_DOMAIN_INTRODUCED, introduced: true };
  t.strictSame(await run(client.isDomainIntroduced(5), introduced), [true, { type: 17, domid: 5 }]);
  const [answer] = await run(client.request({ type: XsType.CONTROL, args: ['help'] }), {
    type: XsType.CONTROL,
    text: 'check log',
  });
  t.strictSame(answer, { type: XsType.CONTROL, text: 'check log' });
});

void t.test('replies may come in any order', async (t) => {
  const { server, client } = start();
  const results = ['a', 'b', 'c'].map((path) => client.read(path));
  const received = [await server.take(), await server.take(), await server.take()];
  for (const one of received.reverse()) {
    const { request } = one;
    server.reply(one, value('path' in request ? `value of ${request.path}` : ''));
  }
  t.strictSame(await Promise.all(results), ['value of a', 'value of b', 'value of c']);
});

void t.test('replies may come joined and in pieces', async (t) => {
  const { server, client } = start();
  const results = Promise.all([client.read('a'), client.read('b')]);
  const [first, second] = [await server.take(), await server.take()];
  const bytes = Buffer.concat([
    encodeReply(value('1'), first.reqId),
    encodeReply(value('2'), second.reqId),
  ]);
  for (const byte of bytes) server.sendBytes(Uint8Array.of(byte));
  t.strictSame(await results, ['1', '2']);
});

void t.test('errors keep their name, path and a sentence', async (t) => {
  const { server, client } = start();
  const failed = client.read('device/vbd');
  await server.refuse('EACCES');
  const error = await failed.catch((error: unknown) => error);
  t.ok(error instanceof XenStoreError);
  t.match(error, { name: 'XenStoreError', code: 'EACCES', path: 'device/vbd' });
  t.match(error, { message: /READ of "device\/vbd" with EACCES: this domain may not/ });
  const missing = client.tryRead('a');
  await server.refuse('ENOENT');
  t.equal(await missing, undefined);
  const forbidden = client.tryRead('a');
  await server.refuse('EACCES');
  await t.rejects(forbidden, { code: 'EACCES' }, 'tryRead hides nothing else');
  const odd = client.read('a');
  await server.refuse('EDQUOT');
  await t.rejects(odd, { code: 'EINVAL', message: /EDQUOT/ }, 'a name this client does not know');
});

void t.test('what cannot be sent is refused here', async (t) => {
  const { server, client } = start();
  await t.rejects(client.read('/a/'), {
    code: 'EINVAL',
    path: '/a/',
    message: /ends with a slash/,
  });
  await t.rejects(client.write('a', 'x'.repeat(4095)), { code: 'E2BIG' });
  await t.rejects(
    client.watch('', () => {}),
    { code: 'EINVAL' },
  );
  server.sendError = new XenStoreError('ENOSPC', 'the kernel answered ENOSPC: no room.');
  await t.rejects(client.read('a'), {
    code: 'ENOSPC',
    path: 'a',
    message: /READ of "a" was not sent: the kernel answered ENOSPC/,
  });
  server.sendError = undefined;
  const next = client.read('a');
  await server.answer(XsType.READ, value('still alive'));
  t.equal(await next, 'still alive');
});

void t.test('a breach of the protocol ends the connection and rejects all', async (t) => {
  const breaches: Readonly<Record<string, (server: ScriptedTransport) => void>> = {
    'unknown id': (server) =>
      server.sendPacket({ type: 2, reqId: 999, txId: 0, payload: new Uint8Array(0) }),
    'error for an unknown id': (server) =>
      server.sendPacket({ type: 16, reqId: 999, txId: 0, payload: Buffer.from('EIO\0') }),
    'wrong type': (server) =>
      server.sendPacket({ type: 11, reqId: 1, txId: 0, payload: Buffer.from('OK\0') }),
    'type without a name': (server) =>
      server.sendPacket({ type: 20, reqId: 1, txId: 0, payload: Buffer.from('OK\0') }),
    'unreadable error': (server) =>
      server.sendPacket({ type: 16, reqId: 1, txId: 0, payload: Buffer.from('\0') }),
    'unreadable watch event': (server) =>
      server.sendPacket({ type: 15, reqId: 1, txId: 0, payload: Buffer.from('a') }),
    'too long': (server) =>
      server.sendBytes(Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0)),
    'a second reply': (server) => {
      server.sendBytes(encodeReply(value(''), 2));
      server.sendBytes(encodeReply(value(''), 2));
    },
  };
  for (const [name, breach] of Object.entries(breaches)) {
    const { server, client } = start();
    const first = client.read('a');
    const second = client.read('b').catch((error: unknown) => error);
    breach(server);
    const error = await first.catch((error: unknown) => error);
    t.ok(error instanceof XenStoreClosedError, name);
    t.match(error, { code: 'CLOSED', message: /broke the protocol/ }, name);
    t.ok((error as Error).cause instanceof XenStoreProtocolError, name);
    await second;
    t.ok(server.isClosed, `${name}: transport closed`);
    t.equal(await client.closed, error, `${name}: closed tells why`);
    await t.rejects(client.read('c'), XenStoreClosedError, `${name}: later requests`);
  }
});

void t.test('nothing behind a breach is believed', async (t) => {
  const { server, client } = start();
  const pending = client.read('a');
  const unknown = encodeReply(value('lie'), 999);
  server.sendBytes(Buffer.concat([unknown, encodeReply(value('after'), 1)]));
  await t.rejects(pending, XenStoreClosedError);
});

void t.test('the end of the connection rejects what is pending', async (t) => {
  const { server, client } = start();
  const pending = [
    client.read('a'),
    client.write('a', 'b'),
    client.watch('a', () => {}),
    client.watchEvents('a'),
    client.transaction(() => 1),
    client.waitFor('a', () => true),
    client.directory('a'),
    client.resetWatches(),
  ].map((promise) => promise.catch((error: unknown) => error));
  server.sendBytes(Uint8Array.of(1, 2, 3));
  server.end(new Error('the cable was cut'));
  for (const error of await Promise.all(pending)) {
    t.ok(error instanceof XenStoreClosedError);
    t.match(error, { message: /ended in the middle of a message: the cable was cut/ });
    t.match(error, { cause: new Error('the cable was cut') });
  }
  t.match(await client.closed, { code: 'CLOSED' });
});

void t.test('close() rejects what is pending and is no error itself', async (t) => {
  const { server, client } = start();
  const pending = client.read('a');
  const closing = client.close();
  await t.rejects(pending, { code: 'CLOSED', message: /closed by this program/ });
  await closing;
  await client.close();
  t.equal(await client.closed, undefined);
  t.ok(server.isClosed);
  await t.rejects(client.read('a'), XenStoreClosedError);
  server.sendBytes(encodeReply(value('late'), 1));
  await settle();
});

void t.test('a directory that is too long comes in parts', async (t) => {
  const { server, client } = start();
  const part = (generation: string, names: string[], isLast: boolean): XsReply => ({
    type: XsType.DIRECTORY_PART,
    generation,
    names,
    isLast,
  });
  const offsetOf = async (reply: XsReply): Promise<number> => {
    const { request } = await server.answer(XsType.DIRECTORY_PART, reply);
    return request.type === XsType.DIRECTORY_PART ? request.offsetBytes : -1;
  };

  const whole = client.directory('a');
  await server.refuse('E2BIG');
  t.equal(await offsetOf(part('7', ['abc', 'd'], false)), 0);
  t.equal(await offsetOf(part('7', ['e'], false)), 6, 'bytes of "abc", "d" and their NULs');
  t.equal(await offsetOf(part('7', [], true)), 8);
  t.strictSame(await whole, ['abc', 'd', 'e']);

  const changed = client.directory('a');
  await server.refuse('E2BIG');
  t.equal(await offsetOf(part('7', ['abc'], false)), 0);
  t.equal(await offsetOf(part('8', ['x'], true)), 4);
  t.equal(await offsetOf(part('8', ['new'], true)), 0, 'begins anew');
  t.strictSame(await changed, ['new']);

  const restless = client.directory('a').catch((error: unknown) => error);
  await server.refuse('E2BIG');
  for (let attempt = 0; attempt < 10; attempt += 1) {
    await offsetOf(part(`${attempt}`, ['abc'], false));
    await offsetOf(part(`${attempt + 1}`, ['x'], true));
  }
  t.match(await restless, { code: 'EAGAIN', path: 'a' }, 'a bound');

  const old = client.directory('a');
  await server.refuse('E2BIG');
  await server.refuse('ENOSYS');
  await t.rejects(old, { code: 'E2BIG' }, 'a server without DIRECTORY_PART');

  const vanished = client.directory('a');
  await server.refuse('E2BIG');
  await server.refuse('ENOENT');
  await t.rejects(vanished, { code: 'ENOENT' });
});
