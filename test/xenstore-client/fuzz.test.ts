// Goal: no bytes from a peer cause anything but the documented errors, what a server parses it can
// send again unchanged, and every promise of a client settles whatever the server sends. Method:
// random bodies, and well-formed traffic with random damage, from a printed seed.
import t from 'tap';
import { XenStoreClient, XenStoreError } from 'xenstore-client';
import {
  decodePacket,
  encodePacket,
  encodeReply,
  encodeRequest,
  encodeWatchEvent,
  parseReply,
  parseRequest,
  XenStoreProtocolError,
  XsType,
} from 'xenstore-client/wire';
import { ScriptedTransport, settle } from './scripted-transport.ts';
import { chooseSeed, seededRandom } from './seeded-random.ts';

const seed = chooseSeed();
const random = seededRandom(seed);

function below(limit: number): number {
  return Math.floor(random() * limit);
}

function pick<T>(list: readonly T[], otherwise: T): T {
  return list[below(list.length)] ?? otherwise;
}

const pieces = [
  '',
  'a',
  '/',
  '//',
  'a/b',
  '@x',
  'T',
  'F',
  'OK',
  '0',
  '5',
  '65536',
  'n0',
  'r5',
  '-1',
];

/** Strings that nearly make sense, mostly ended by NUL. */
function nearlyBody(): Uint8Array {
  let text = '';
  for (let count = below(5); count > 0; count -= 1) {
    text += pick(pieces, '') + (below(8) === 0 ? '' : '\0');
  }
  const body = Uint8Array.from(Buffer.from(text, 'latin1'));
  if (body.length > 0 && below(4) === 0) body[below(body.length)] = below(256);
  return body;
}

void t.test('requests: parsed and sent again unchanged, or refused with a name', (t) => {
  let parsed = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const packet = { type: below(30), reqId: 1, txId: 0, payload: nearlyBody() };
    const where = `SEED=${seed} round ${round}`;
    try {
      const request = parseRequest(packet);
      const again = parseRequest(decodePacket(encodeRequest(request, 1)));
      parsed += 1;
      if (JSON.stringify(again) !== JSON.stringify(request)) t.strictSame(again, request, where);
    } catch (error) {
      const isNamed = error instanceof XenStoreError && /^E(INVAL|NOSYS)$/.test(error.code);
      if (!isNamed) t.fail(where, { error });
    }
  }
  t.ok(parsed > 1000, `${parsed} were good`);
  t.end();
});

void t.test('replies: parsed and sent again unchanged, or a breach of the protocol', (t) => {
  let parsed = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const packet = { type: below(30), reqId: 1, txId: 0, payload: nearlyBody() };
    const where = `SEED=${seed} round ${round}`;
    try {
      const reply = parseReply(packet);
      const again = parseReply(decodePacket(encodeReply(reply, 1)));
      parsed += 1;
      if (JSON.stringify(again) !== JSON.stringify(reply)) t.strictSame(again, reply, where);
    } catch (error) {
      if (!(error instanceof XenStoreProtocolError)) t.fail(where, { error });
    }
  }
  t.ok(parsed > 1000, `${parsed} were good`);
  t.end();
});

/** A server's message: mostly the right answer to an open request, sometimes anything. */
function someMessage(openIds: readonly number[]): Uint8Array {
  const reqId = pick(openIds, 1);
  const kind = below(8);
  if (kind === 0) return encodeWatchEvent({ path: 'a', token: String(below(4)) });
  if (kind === 1) return encodeReply({ type: XsType.ERROR, name: 'EIO' }, reqId);
  if (kind === 2) {
    return encodePacket({ type: below(30), reqId: below(6), txId: 0, payload: nearlyBody() });
  }
  return encodeReply({ type: XsType.READ, value: nearlyBody() }, reqId);
}

void t.test('a client settles everything, whatever comes', async (t) => {
  let broken = 0;
  for (let round = 0; round < 250; round += 1) {
    const server = new ScriptedTransport();
    const client = new XenStoreClient(server);
    let unsettled = 0;
    const track = (promise: Promise<unknown>): void => {
      unsettled += 1;
      const done = (): void => {
        unsettled -= 1;
      };
      promise.then(done, (error: unknown) => {
        done();
        if (!(error instanceof XenStoreError)) t.fail(`SEED=${seed} round ${round}`, { error });
      });
    };
    for (const path of ['a', 'b', 'c']) track(client.read(path));
    track(client.watch('a', () => {}));
    track(client.directory('a'));
    track(client.waitFor('a', () => true));
    track(client.transaction(async (transaction) => await transaction.read('a')));
    for (let count = 1 + below(10); count > 0; count -= 1) {
      const message = Buffer.from(someMessage(server.received.map(({ reqId }) => reqId)));
      if (below(6) === 0) message[below(message.length)] = below(256);
      server.sendBytes(message.subarray(0, below(6) === 0 ? below(message.length) : undefined));
      if (below(3) === 0) await settle();
    }
    if (server.isClosed) broken += 1;
    server.end(undefined);
    t.match(await client.closed, { code: 'CLOSED' }, `SEED=${seed} round ${round}`);
    await settle();
    await settle();
    if (unsettled > 0) t.fail(`SEED=${seed} round ${round}: ${unsettled} promises hang`);
  }
  t.ok(broken > 25, `${broken} connections ended by a breach`);
});
