// The send buffer of a Unix socket holds a whole large reply.
import { connect, createServer, type Socket } from 'node:net';
import t from 'tap';
import {
  allocateMemory,
  closeFd,
  createSocketPair,
  enlargeSendBuffer,
  libc,
} from '../../src/sys/index.ts';

const MIB = 2 ** 20;
const MSG_NOSIGNAL = 0x4000;

/** What a socket takes whose reader takes nothing. */
function capacityBytes(fd: number): number {
  const piece = allocateMemory(64 * 1024);
  let sum = 0;
  for (;;) {
    const count = libc.send(fd, piece.address, piece.lengthBytes, MSG_NOSIGNAL);
    if (count < 0) return sum;
    sum += count;
  }
}

void t.test('a Unix socket takes more than before', async (t) => {
  const [small, smallReader] = createSocketPair();
  const [large, largeReader] = createSocketPair();
  enlargeSendBuffer(large, MIB);
  const before = capacityBytes(small);
  const after = capacityBytes(large);
  // An unprivileged user gets twice the default where net.core.wmem_max is the default.
  t.ok(after >= before * 1.5, `${after} bytes against ${before}`);
  for (const fd of [small, smallReader, large, largeReader]) closeFd(fd);
});

void t.test('it maps no memory for each socket, which a lane would never give back', async (t) => {
  const [fd, other] = createSocketPair();
  enlargeSendBuffer(fd, MIB);
  let mapped = 0;
  const { mmap } = libc;
  t.teardown(() => {
    libc.mmap = mmap;
    for (const each of [fd, other]) closeFd(each);
  });
  libc.mmap = (...parameters) => {
    mapped += 1;
    return mmap(...parameters);
  };
  for (let round = 0; round < 10; round++) enlargeSendBuffer(fd, MIB);
  t.equal(mapped, 0);
});

void t.test('a TCP socket keeps the buffer that the kernel sizes', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const client = connect(address.port, '127.0.0.1');
  const [accepted] = await Promise.all([
    new Promise<Socket>((resolve) => server.once('connection', resolve)),
    new Promise((resolve) => client.once('connect', resolve)),
  ]);
  const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
  const before = sendBufferBytes(fd);
  enlargeSendBuffer(fd, 8 * MIB);
  t.equal(sendBufferBytes(fd), before);
  client.destroy();
  accepted.destroy();
  server.close();
});

/** SO_SNDBUF of socket(7). */
function sendBufferBytes(fd: number): number {
  const memory = allocateMemory(8);
  const words = new Int32Array(memory.buffer, 0, 2);
  words[1] = 4;
  libc.getsockopt(fd, 1, 7, memory.address, memory.address + 4);
  return words[0] ?? 0;
}
