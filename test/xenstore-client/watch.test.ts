// Goal: watch events reach the watch they belong to, whatever is in their ids; iterables end when
// the
// watch does, never hang and never grow without bound; waitFor misses nothing. Method: a
// scripted server and timers that the test turns.
import t from 'tap';
import {
  type Timers,
  type Watch,
  type WatchEvents,
  XenStoreClient,
  XenStoreClosedError,
} from 'xenstore-client';
import { encodeWatchEvent, type XsReply, XsType } from 'xenstore-client/wire';
import { type Received, ScriptedTransport, settle } from './scripted-transport.ts';

const watched: XsReply = { type: XsType.WATCH };
const unwatched: XsReply = { type: XsType.UNWATCH };

class ManualTimers implements Timers {
  readonly pending = new Map<number, { callback: () => void; delayMs: number }>();
  #lastHandle = 0;

  setTimeout(callback: () => void, delayMs: number): unknown {
    this.#lastHandle += 1;
    this.pending.set(this.#lastHandle, { callback, delayMs });
    return this.#lastHandle;
  }

  clearTimeout(handle: unknown): void {
    if (typeof handle === 'number') this.pending.delete(handle);
  }

  fireAll(): void {
    const due = [...this.pending.values()];
    this.pending.clear();
    for (const { callback } of due) callback();
  }
}

function start(): { server: ScriptedTransport; client: XenStoreClient; timers: ManualTimers } {
  const server = new ScriptedTransport();
  const timers = new ManualTimers();
  return { server, client: new XenStoreClient(server, { timers }), timers };
}

function tokenOf(received: Received): string {
  const { request } = received;
  return 'token' in request ? request.token : '';
}

async function listen(
  server: ScriptedTransport,
  client: XenStoreClient,
  path: string,
  listener: (path: string) => void,
): Promise<{ watch: Watch; token: string }> {
  const watch = client.watch(path, listener);
  const token = tokenOf(await server.answer(XsType.WATCH, watched));
  return { watch: await watch, token };
}

async function iterate(
  server: ScriptedTransport,
  client: XenStoreClient,
  path: string,
  signal?: AbortSignal,
): Promise<{ events: WatchEvents; token: string }> {
  const events = client.watchEvents(path, { signal });
  const token = tokenOf(await server.answer(XsType.WATCH, watched));
  return { events: await events, token };
}

void t.test('events go by token, not by id', async (t) => {
  const { server, client } = start();
  const seen: string[] = [];
  const first = await listen(server, client, 'a', (path) => seen.push(`first ${path}`));
  const second = await listen(server, client, 'a', (path) => seen.push(`second ${path}`));
  t.not(first.token, second.token);
  const reading = client.read('x');
  const { reqId } = await server.take();
  // The kernel leaves what was on its stack in the ids: here it looks like the open request.
  const payload = Buffer.from(`a/b\0${second.token}\0`);
  server.sendPacket({ type: XsType.WATCH_EVENT, reqId, txId: 0xdeadbeef, payload });
  server.fire('a', first.token);
  server.fire('a', 'a token that was never given');
  t.strictSame(seen, ['second a/b', 'first a']);
  server.sendPacket({ type: XsType.READ, reqId, txId: 0, payload: Buffer.from('v') });
  t.equal(await reading, 'v');
});

void t.test('the first event may overtake the answer', async (t) => {
  const { server, client } = start();
  const seen: string[] = [];
  const watch = client.watch('a', (path) => seen.push(path));
  const received = await server.take();
  server.fire('a', tokenOf(received));
  server.reply(received, watched);
  await watch;
  t.strictSame(seen, ['a']);
});

void t.test('a closed watch is silent at once, and closing twice is one UNWATCH', async (t) => {
  const { server, client } = start();
  const seen: string[] = [];
  const { watch, token } = await listen(server, client, 'a', (path) => seen.push(path));
  t.equal(watch.path, 'a');
  const closing = watch.close();
  server.fire('a', token);
  const { request } = await server.answer(XsType.UNWATCH, unwatched);
  t.strictSame(request, { type: XsType.UNWATCH, path: 'a', token });
  await closing;
  await watch.close();
  await watch[Symbol.asyncDispose]();
  t.strictSame(seen, []);
  t.equal(server.received.length, 0);
});

void t.test('a watch the server no longer has is closed all the same', async (t) => {
  const { server, client } = start();
  const { watch } = await listen(server, client, 'a', () => {});
  const closing = watch.close();
  await server.refuse('ENOENT');
  t.equal(await closing, undefined);
  const other = await listen(server, client, 'a', () => {});
  server.end(new Error('gone'));
  t.equal(await other.watch.close(), undefined);
});

void t.test('a refused watch rejects and gets no events', async (t) => {
  const { server, client } = start();
  const failed = client.watch('a', () => t.fail('must not be called'));
  const token = tokenOf(await server.refuse('ENOSPC'));
  await t.rejects(failed, { code: 'ENOSPC', path: 'a' });
  server.fire('a', token);
});

void t.test('a listener may close the client in the middle of a chunk', async (t) => {
  const { server, client } = start();
  let calls = 0;
  const { token } = await listen(server, client, 'a', () => {
    calls += 1;
    void client.close();
  });
  const event = encodeWatchEvent({ path: 'a', token });
  server.sendBytes(Buffer.concat([event, event]));
  await client.closed;
  t.equal(calls, 1);
});

void t.test('a listener that throws does not disturb the connection', async (t) => {
  const { server, client } = start();
  const caught: unknown[] = [];
  const seen: string[] = [];
  // Instead of tap's own handling of uncaught exceptions.
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.once('uncaughtException', (error) => caught.push(error));
  const bad = await listen(server, client, 'a', () => {
    throw new Error('mistake');
  });
  const good = await listen(server, client, 'a', (path) => seen.push(path));
  const events = [bad.token, good.token].map((token) => encodeWatchEvent({ path: 'a', token }));
  server.sendBytes(Buffer.concat(events));
  t.strictSame(seen, ['a'], 'the message behind it');
  await settle();
  for (const listener of others) process.on('uncaughtException', listener);
  t.match(caught, [{ message: 'mistake' }], 'and the mistake is not hidden');
});

void t.test('an iterable gives each path once while nobody takes it', async (t) => {
  const { server, client } = start();
  const { events, token } = await iterate(server, client, 'a');
  for (const path of ['a', 'a/b', 'a/b', 'a', 'a/c']) server.fire(path, token);
  const seen: string[] = [];
  for await (const path of events) {
    seen.push(path);
    if (path === 'a/c') break;
  }
  t.strictSame(seen, ['a', 'a/b', 'a/c']);
  await server.answer(XsType.UNWATCH, unwatched);
  t.strictSame(await events.next(), { value: undefined, done: true }, 'done after break');
});

void t.test('an iterable does not grow without bound', async (t) => {
  const { server, client } = start();
  const { events, token } = await iterate(server, client, 'a');
  for (let index = 0; index < 1024; index += 1) server.fire(`a/${index}`, token);
  server.fire('a/0', token);
  t.strictSame(await events.next(), { value: 'a/0', done: false }, '1024 are kept');
  server.fire('a/again', token);
  server.fire('a/more', token);
  t.strictSame(await events.next(), { value: 'a', done: false }, 'one more: look at all of it');
  const next = events.next();
  server.fire('a/later', token);
  t.strictSame(await next, { value: 'a/later', done: false });
});

void t.test('how an iterable ends', async (t) => {
  const done = { value: undefined, done: true };
  {
    const { server, client } = start();
    const { events } = await iterate(server, client, 'a');
    const waiting = [events.next(), events.next()];
    t.strictSame(await events.return(), done, 'return()');
    t.strictSame(await Promise.all(waiting), [done, done], 'those who wait are told');
    await server.answer(XsType.UNWATCH, unwatched);
    await events.return();
    t.equal(server.received.length, 0, 'one UNWATCH');
  }
  {
    const { server, client } = start();
    const { events } = await iterate(server, client, 'a');
    const [first, second] = [events.next(), events.next()];
    server.end(new Error('cut'));
    await t.rejects(first, XenStoreClosedError, 'a connection that breaks');
    t.strictSame(await second, done, 'is told once');
    const late = start();
    const { events: other } = await iterate(late.server, late.client, 'a');
    late.server.end(undefined);
    await t.rejects(other.next(), XenStoreClosedError, 'also to one who asks later');
    t.strictSame(await other.next(), done);
  }
  {
    const { server, client } = start();
    const { events } = await iterate(server, client, 'a');
    const waiting = events.next();
    await client.close();
    t.strictSame(await waiting, done, 'close() by this program');
  }
  {
    const { server, client } = start();
    const stop = new AbortController();
    const { events } = await iterate(server, client, 'a', stop.signal);
    const waiting = events.next();
    stop.abort(new Error('enough'));
    await t.rejects(waiting, { message: 'enough' }, 'a signal');
    await server.answer(XsType.UNWATCH, unwatched);
    await t.rejects(client.watchEvents('a', { signal: stop.signal }), { message: 'enough' });
    t.equal(server.received.length, 0, 'aborted before: nothing was sent');
  }
  {
    const { server, client } = start();
    const stop = new AbortController();
    const opening = client.watchEvents('a', { signal: stop.signal });
    const received = await server.take();
    stop.abort(new Error('meanwhile'));
    server.reply(received, watched);
    await t.rejects((await opening).next(), { message: 'meanwhile' }, 'a signal while opening');
    await server.answer(XsType.UNWATCH, unwatched);
  }
});

void t.test('resetWatches ends the watches of before, and only those', async (t) => {
  const { server, client } = start();
  const { events } = await iterate(server, client, 'a');
  const seen: string[] = [];
  const { watch, token } = await listen(server, client, 'a', (path) => seen.push(path));
  const reset = client.resetWatches();
  const resetRequest = await server.take();
  const later = await listen(server, client, 'a', (path) => seen.push(`later ${path}`));
  server.reply(resetRequest, { type: XsType.RESET_WATCHES });
  await reset;
  t.strictSame(await events.next(), { value: undefined, done: true });
  server.fire('a', token);
  server.fire('a', later.token);
  t.strictSame(seen, ['later a']);
  await watch.close();
  t.equal(server.received.length, 0, 'nothing to unwatch');
});

void t.test('waitFor reads again at each event', async (t) => {
  const { server, client, timers } = start();
  const wait = client.waitFor('b/state', (state) => state === '4', { timeoutMs: 1000 });
  const token = tokenOf(await server.answer(XsType.WATCH, watched));
  t.strictSame(
    [...timers.pending.values()].map((timer) => timer.delayMs),
    [1000],
  );
  server.fire('b/state', token);
  await server.refuse('ENOENT');
  await settle();
  t.equal(server.received.length, 0, 'waits for the next event');
  server.fire('b/state', token);
  const reading = await server.take();
  // The state changes while the old one is on its way: the event must not be lost.
  server.fire('b/state', token);
  server.reply(reading, { type: XsType.READ, value: Buffer.from('2') });
  await server.answer(XsType.READ, { type: XsType.READ, value: Buffer.from('4') });
  t.equal(await wait, '4');
  await server.answer(XsType.UNWATCH, unwatched);
  t.equal(timers.pending.size, 0, 'the timer is gone');
});

void t.test('waitFor ends on time and says what it saw', async (t) => {
  const { server, client, timers } = start();
  const wait = client.waitFor('s', (state) => state === '4', { timeoutMs: 1000 });
  const failure = wait.catch((error: unknown) => error);
  const token = tokenOf(await server.answer(XsType.WATCH, watched));
  server.fire('s', token);
  await server.answer(XsType.READ, { type: XsType.READ, value: Buffer.from('1') });
  await settle();
  timers.fireAll();
  t.match(await failure, { code: 'TIMEOUT', path: 's', message: /within 1000 ms; it holds "1"/ });
  await server.answer(XsType.UNWATCH, unwatched);

  const silent = client.waitFor('s', () => true, { timeoutMs: 5 });
  const silentFailure = silent.catch((error: unknown) => error);
  await server.take();
  timers.fireAll();
  t.match(await silentFailure, { code: 'TIMEOUT', message: /not read yet/ }, 'a dead server');
});

void t.test('waitFor ends with its signal, its predicate and the connection', async (t) => {
  const { server, client } = start();
  const stop = new AbortController();
  const wait = client.waitFor('s', () => false, { signal: stop.signal });
  const failure = wait.catch((error: unknown) => error);
  await server.answer(XsType.WATCH, watched);
  stop.abort(new Error('enough'));
  t.match(await failure, { message: 'enough' });
  await server.answer(XsType.UNWATCH, unwatched);
  await t.rejects(
    client.waitFor('s', () => true, { signal: stop.signal }),
    { message: 'enough' },
  );

  const throwing = client.waitFor('s', () => {
    throw new Error('mistake');
  });
  const mistake = throwing.catch((error: unknown) => error);
  server.fire('s', tokenOf(await server.answer(XsType.WATCH, watched)));
  await server.answer(XsType.READ, { type: XsType.READ, value: Buffer.from('1') });
  t.match(await mistake, { message: 'mistake' });
  await server.answer(XsType.UNWATCH, unwatched);

  const forbidden = client.waitFor('s', () => true);
  server.fire('s', tokenOf(await server.answer(XsType.WATCH, watched)));
  await server.refuse('EACCES');
  await t.rejects(forbidden, { code: 'EACCES' });
  await server.answer(XsType.UNWATCH, unwatched);

  const waiting = client.waitFor('s', () => false);
  const closed = waiting.catch((error: unknown) => error);
  await server.answer(XsType.WATCH, watched);
  server.end(undefined);
  t.match(await closed, { code: 'CLOSED' });
  const other = start();
  const idle = other.client.waitFor('s', () => false);
  const left = idle.catch((error: unknown) => error);
  await other.server.answer(XsType.WATCH, watched);
  await other.client.close();
  t.match(await left, { code: 'CLOSED' });
});
