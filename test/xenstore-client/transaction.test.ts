// Goal: a transaction is repeated as a whole on EAGAIN, with a bound, and dropped when its function
// throws. Method: a scripted server.
import t from 'tap';
import { XenStoreClient, XenStoreClosedError, type XenStoreTransaction } from 'xenstore-client';
import { type XsReply, XsType } from 'xenstore-client/wire';
import { type Received, ScriptedTransport, settle } from './scripted-transport.ts';

function start(): { server: ScriptedTransport; client: XenStoreClient } {
  const server = new ScriptedTransport();
  return { server, client: new XenStoreClient(server) };
}

function begun(transactionId: number): XsReply {
  return { type: XsType.TRANSACTION_START, transactionId };
}

const ended: XsReply = { type: XsType.TRANSACTION_END };
const written: XsReply = { type: XsType.WRITE };

function commits(received: Received): boolean | undefined {
  const { request } = received;
  return request.type === XsType.TRANSACTION_END ? request.commit : undefined;
}

void t.test('commits and returns what the function returned', async (t) => {
  const { server, client } = start();
  const result = client.transaction(async (transaction) => {
    const state = await transaction.read('state');
    await transaction.write('state', '3');
    return `was ${state}`;
  });
  t.equal((await server.answer(XsType.TRANSACTION_START, begun(77))).txId, 0);
  const read = await server.answer(XsType.READ, { type: XsType.READ, value: Buffer.from('1') });
  t.equal(read.txId, 77);
  t.equal((await server.answer(XsType.WRITE, written)).txId, 77);
  const end = await server.answer(XsType.TRANSACTION_END, ended);
  t.equal(end.txId, 77);
  t.equal(commits(end), true);
  t.equal(await result, 'was 1');
});

void t.test('a conflict repeats all of it', async (t) => {
  const { server, client } = start();
  let runs = 0;
  const result = client.transaction(async (transaction) => {
    runs += 1;
    await transaction.write('a', String(runs));
    return runs;
  });
  for (let id = 1; id <= 3; id += 1) {
    await server.answer(XsType.TRANSACTION_START, begun(id));
    t.equal((await server.answer(XsType.WRITE, written)).txId, id);
    if (id < 3) t.equal((await server.refuse('EAGAIN')).txId, id);
    else await server.answer(XsType.TRANSACTION_END, ended);
  }
  t.equal(await result, 3);
});

void t.test('conflicts are borne as often as asked for, and no more', async (t) => {
  for (const attempts of [1, 2, undefined]) {
    const { server, client } = start();
    let runs = 0;
    const options = attempts === undefined ? {} : { attempts };
    const result = client.transaction(() => {
      runs += 1;
    }, options);
    const failure = result.catch((error: unknown) => error);
    for (let attempt = 1; attempt <= (attempts ?? 10); attempt += 1) {
      await server.answer(XsType.TRANSACTION_START, begun(attempt));
      await server.refuse('EAGAIN');
    }
    t.match(await failure, { code: 'EAGAIN', message: /conflicted/ });
    t.equal(runs, attempts ?? 10);
  }
});

void t.test('a function that throws drops the transaction', async (t) => {
  const { server, client } = start();
  const mistake = new Error('mistake');
  const result = client.transaction(() => {
    throw mistake;
  });
  const failure = result.catch((error: unknown) => error);
  await server.answer(XsType.TRANSACTION_START, begun(5));
  const end = await server.answer(XsType.TRANSACTION_END, ended);
  t.equal(commits(end), false);
  t.equal(end.txId, 5);
  t.equal(await failure, mistake);

  const other = client.transaction((transaction) => transaction.read('a'));
  const otherFailure = other.catch((error: unknown) => error);
  await server.answer(XsType.TRANSACTION_START, begun(6));
  await server.refuse('ENOENT');
  t.equal(commits(await server.refuse('EIO')), false);
  t.match(await otherFailure, { code: 'ENOENT' }, 'the first error is the one to tell');
});

void t.test('other failures of the commit are not repeated', async (t) => {
  const { server, client } = start();
  const result = client.transaction(() => 1);
  await server.answer(XsType.TRANSACTION_START, begun(5));
  await server.refuse('ENOSPC');
  await t.rejects(result, { code: 'ENOSPC' });
  const refused = client.transaction(() => t.fail('must not run'));
  await server.refuse('EBUSY');
  await t.rejects(refused, { code: 'EBUSY' });
});

void t.test('requests that were not awaited are answered before the end is sent', async (t) => {
  const { server, client } = start();
  let leaked: XenStoreTransaction | undefined;
  const result = client.transaction((transaction) => {
    leaked = transaction;
    void transaction.write('a', '1');
    void transaction.write('b', '2');
  });
  await server.answer(XsType.TRANSACTION_START, begun(5));
  const [first, second] = [await server.take(), await server.take()];
  await settle();
  t.equal(server.received.length, 0, 'no end yet');
  server.reply(second, written);
  server.reply(first, written);
  await server.answer(XsType.TRANSACTION_END, ended);
  await result;
  const late = leaked?.read('a') ?? Promise.resolve('');
  await t.rejects(late, { code: 'EINVAL', message: /has ended/ });
});

void t.test('the connection may end in the middle', async (t) => {
  const { server, client } = start();
  const result = client.transaction((transaction) => transaction.read('a'));
  await server.answer(XsType.TRANSACTION_START, begun(5));
  await server.take();
  server.end(undefined);
  await t.rejects(result, XenStoreClosedError);
});
