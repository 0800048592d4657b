// Goal: a stream over a socket that Node does not know behaves as Node's own do: it waits for slow
// readers, ends each half by itself, tells of errors, and leaves nothing open.
// Method: Unix sockets, of which it knows no more than of vsock.
import { once } from 'node:events';
import net from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { detachSocket } from '../../src/daemon/handover.ts';
import { SocketStream } from '../../src/daemon/socket-stream.ts';
import { acceptClients } from '../../src/daemon/vsock-listener.ts';
import { closeFd, createSocketPair } from '../../src/sys/index.ts';
import { eventually } from '../support/eventually.ts';
import { countDescriptors } from '../support/proc-stat.ts';
import { listenUnix } from './support/raw-listener.ts';
import { makeFolder } from './support/simulated.ts';

interface Pair {
  readonly stream: SocketStream;
  readonly peer: net.Socket;
}

function makePair(): Pair {
  const [one, other] = createSocketPair();
  const peer = new net.Socket({ fd: other, readable: true, writable: true, allowHalfOpen: true });
  return { stream: new SocketStream(one), peer };
}

/** What comes until the end. Not with `for await`, which destroys the other half then. */
async function readAll(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(stream, 'end');
  return Buffer.concat(chunks);
}

void t.test('much more than a socket holds goes both ways at once', async (t) => {
  const { stream, peer } = makePair();
  const there = Buffer.alloc(3_000_001, 'there and back ');
  const back = Buffer.alloc(2_000_003, 'and back again ');
  const heard = [readAll(peer), readAll(stream)] as const;
  stream.end(there);
  peer.end(back);
  t.ok((await heard[0]).equals(there));
  t.ok((await heard[1]).equals(back));
  await eventually('it is closed', 30_000, () => (stream.closed ? true : undefined));
});

void t.test('a reader that does not read is waited for', async (t) => {
  const { stream, peer } = makePair();
  peer.pause();
  let isSent = false;
  stream.write(Buffer.alloc(2_000_000), () => {
    isSent = true;
  });
  const answer = once(stream, 'data');
  peer.write('still here');
  t.equal(String((await answer)[0]), 'still here', 'reading goes on meanwhile');
  t.equal(isSent, false);
  peer.resume();
  await eventually('it is sent', 30_000, () => (isSent ? true : undefined));
  stream.destroy();
  peer.destroy();
});

void t.test('a peer that is gone is an error of the write', async (t) => {
  const { stream, peer } = makePair();
  const closed = once(peer, 'close');
  peer.destroy();
  await closed;
  const failed = once(stream, 'error');
  stream.write('hello');
  t.match((await failed)[0], { name: 'SysError', code: 'EPIPE' });
});

void t.test('what was read and what was not go with the descriptor', async (t) => {
  const { stream, peer } = makePair();
  peer.write('first');
  await once(stream, 'readable');
  const before = countDescriptors(process.pid);
  const detached = detachSocket(stream, Buffer.from('rest, '));
  t.equal(String(Buffer.from(detached?.bytes ?? [])), 'rest, first');
  t.ok(stream.destroyed);
  t.equal(countDescriptors(process.pid), before, 'one for the other');
  const again = new SocketStream(detached?.fd ?? -1);
  peer.end('second');
  t.equal(String(await readAll(again)), 'second');
  again.destroy();
  t.equal(detachSocket(again, Buffer.alloc(0)), undefined, 'one that is closed has none');
});

void t.test('clients of a listening socket', async (t) => {
  const path = join(makeFolder(t), 'listening.sock');
  const before = countDescriptors(process.pid);
  const taken: SocketStream[] = [];
  const close = acceptClients(listenUnix(path, false), {
    onClient: (stream) => taken.push(stream),
    onTrouble: (error) => t.fail(error.message),
  });
  for (let round = 1; round <= 2; round++) {
    const clients = Array.from({ length: 10 }, () => net.connect({ path }));
    await eventually('all are there', 30_000, () =>
      taken.length === 10 * round ? true : undefined,
    );
    for (const client of clients) client.destroy();
  }
  for (const stream of taken) stream.destroy();
  close();
  await eventually('all is closed', 30_000, () =>
    countDescriptors(process.pid) <= before + 2 ? true : undefined,
  );
  const [one, other] = createSocketPair();
  let trouble: Error | undefined;
  const stop = acceptClients(one, {
    onClient: () => t.fail('a connection has no clients'),
    onTrouble: (error) => {
      trouble = error;
    },
  });
  closeFd(other);
  t.match(await eventually('trouble', 30_000, () => trouble), { syscall: 'accept4' });
  stop();
});
