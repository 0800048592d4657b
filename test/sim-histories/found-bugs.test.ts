/**
 * Goal: what random histories have found wrong stays mended.
 * Method: each bug by itself, as near to its cause as it can be had; the rest by histories that are
 * made to come close to it.
 */

import { createExportInfo, NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import t from 'tap';
import type { Engine } from '../../src/dataplane/engine.ts';
import { NbdConnection } from '../../src/dataplane/nbd-connection.ts';
import { LoopbackSocket } from './loopback-socket.ts';
import { playHistory } from './play-history.ts';
import { createCore, createEngine, createRing, DISK, SIMPLE } from './quiet-ring.ts';
import { encodeHeader } from './request-header.ts';

/** For a busy machine. */
t.setTimeout(120_000);

const RSP_PROD = 2;

/** Starts a write of zeroes in the middle of a sector; returns how to learn its answer. */
function startRagged(engine: Engine): () => number | undefined {
  const operation = engine.take();
  if (operation === undefined) throw new Error('There is no operation.');
  let errno: number | undefined;
  operation.requester = {
    replyReady: (done) => {
      errno = done.errno;
      engine.release(done);
    },
    payloadWanted: () => undefined,
    payloadRefused: () => undefined,
  };
  operation.command = NbdCmd.WRITE_ZEROES;
  operation.offset = 100;
  operation.lengthBytes = 50;
  engine.start(operation);
  engine.pump();
  return () => errno;
}

void t.test('the ends of a ragged write wait for a ring like everything else', (t) => {
  for (const state of ['suspend', 'hold'] as const) {
    const { config, bytes } = createRing();
    const { engine, ring } = createEngine(config);
    ring[state]();
    const before = Buffer.from(bytes);
    startRagged(engine);
    t.equal(ring.inFlight, 0, `nothing is asked after ${state}`);
    t.ok(bytes.equals(before), 'the pages of the ring are as they were');
    const next = createRing();
    ring.resume(next.config, DISK);
    engine.pump();
    t.equal(ring.inFlight, 1, 'it is asked on the next ring');
  }
  t.end();
});

void t.test('a back end that writes to a ring before it is used is found out', (t) => {
  for (const index of [1, 0xffff_ffdf]) {
    const { config, area } = createRing();
    Atomics.store(area.words, RSP_PROD, index);
    const { engine, ring } = createEngine(config);
    const errnoOf = startRagged(engine);
    t.equal(engine.collect(), -1);
    t.match(ring.fault, /before the first request/);
    engine.breakDown();
    t.equal(errnoOf(), NbdErrno.EIO);

    const first = createRing();
    const later = createRing();
    Atomics.store(later.area.words, RSP_PROD, index);
    const other = createEngine(first.config);
    other.ring.suspend();
    other.ring.resume(later.config, DISK);
    t.equal(other.engine.collect(), -1, 'also when it is the next ring');
  }
  t.end();
});

void t.test('a client that is woken with a full buffer is not taken for one that left', (t) => {
  const { engine } = createEngine(createRing().config);
  while (engine.take() !== undefined);
  const socket = new LoopbackSocket({ received: () => undefined });
  let closedBecause: string | undefined;
  const core = createCore(engine, {
    takeOperation: () => undefined,
    connectionClosed: (_connection, reason) => {
      closedBecause = reason;
    },
  });
  const info = createExportInfo({ sizeBytes: 1 << 20 });
  const connection = new NbdConnection(core, 1, socket.fd, info, SIMPLE);
  const flush = { command: NbdCmd.FLUSH, flags: 0, owner: 1, offset: 0, lengthBytes: 0 };
  for (let cookie = 1; cookie <= 400; cookie++) {
    const header = encodeHeader({ ...flush, cookie, hasPayload: false }, false);
    socket.send(header.address, header.lengthBytes);
  }
  socket.deliver(socket.underwayBytes);
  connection.onReadable();
  connection.wake();
  connection.onReadable();
  t.equal(closedBecause, undefined);
  socket.close();
  t.end();
});

void t.test('what was received in full is done before the end of the stream is seen', (t) => {
  const { engine } = createEngine(createRing().config);
  const socket = new LoopbackSocket({ received: () => undefined });
  let closedBecause: string | undefined;
  let isRoom = false;
  let takenCount = 0;
  const core = createCore(engine, {
    takeOperation: () => {
      if (!isRoom) return undefined;
      takenCount += 1;
      return engine.take();
    },
    connectionClosed: (_connection, reason) => {
      closedBecause = reason;
    },
  });
  const info = createExportInfo({ sizeBytes: 1 << 20 });
  const connection = new NbdConnection(core, 1, socket.fd, info, SIMPLE);
  const flush = { command: NbdCmd.FLUSH, flags: 0, owner: 1, offset: 0, lengthBytes: 0 };
  const header = encodeHeader({ ...flush, cookie: 1, hasPayload: false }, false);
  socket.send(header.address, header.lengthBytes);
  socket.deliver(header.lengthBytes);
  socket.isEnded = true;
  // No operation is free: the request waits in the buffer.
  connection.onReadable();
  // One is free now, and in the same turn the socket tells of its end.
  isRoom = true;
  connection.wake();
  connection.onReadable();
  t.equal(closedBecause, undefined, 'nobody has left yet');
  connection.resume();
  t.equal(takenCount, 1, 'the request is being done');
  connection.onReadable();
  t.equal(closedBecause, undefined, 'the client is owed a reply');
  socket.close();
  t.end();
});

void t.test('clients that fill their buffers, and wait for what others have left', async (t) => {
  const client = {
    requests: 60,
    maxInFlight: 16,
    pauseMs: 0.05,
    isChoppy: false,
    isSlowReader: false,
    leaveRate: 0.05,
    agreement: SIMPLE,
  };
  for (let seed = 1; seed <= 40; seed++) {
    const { violation } = await playHistory({
      seed,
      wish: {
        troubles: ['slow'],
        fixed: {
          receiveBufferBytes: 4096,
          operations: 6,
          operationsPerConnection: 8,
          delayMs: 5,
          clients: [client, client, client],
        },
      },
    });
    t.equal(violation, undefined, `seed ${seed}`);
  }
});
