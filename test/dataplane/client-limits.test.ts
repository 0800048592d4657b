// Goal: as many requests, and bytes of reads and writes, are in progress as the limits say, of one
// client and of all; the rest waits in its socket, in order, and a request that no limit has room
// for goes alone. Who takes no replies is given no more of them, and who holds what others wait for
// has so long to move. Each limit at n - 1, n and n + 1.
// Method: a ring that never answers, so that what was begun is what was counted.

import { createExportInfo, NbdCmd } from 'nbd-server-ts/protocol';
import t from 'tap';
import type { Engine } from '../../src/dataplane/engine.ts';
import type { LaneLimits } from '../../src/dataplane/lane-config.ts';
import { NbdConnection } from '../../src/dataplane/nbd-connection.ts';
import { OperationTable } from '../../src/dataplane/operation-table.ts';
import { WaitingClients } from '../../src/dataplane/waiting-clients.ts';
import { LoopbackSocket } from '../sim-histories/loopback-socket.ts';
import { createCore, createEngine, createRing, SIMPLE } from '../sim-histories/quiet-ring.ts';
import { encodeHeader } from '../sim-histories/request-header.ts';

const NO_LIMIT = 2 ** 40;
const INFO = createExportInfo({ sizeBytes: 1 << 23 });

/** Connections in one lane; each says how many of its requests were begun. */
function lane(limits: Partial<LaneLimits>, change: (engine: Engine) => void = () => undefined) {
  const { engine } = createEngine(createRing().config, limits.bytes);
  change(engine);
  const waiting = new WaitingClients(engine);
  const closed: string[] = [];
  const core = createCore(engine, {
    takeOperation: waiting.take.bind(waiting),
    connectionClosed: (_connection, reason) => closed.push(reason),
    limits: {
      operationsPerConnection: 8,
      operations: 8,
      bytesPerConnection: NO_LIMIT,
      bytes: NO_LIMIT,
      ownBytes: 0,
      spillBytes: 0,
      ...limits,
    },
  });
  const connect = (id: number) => {
    const socket = new LoopbackSocket({ received: () => undefined });
    const connection = new NbdConnection(core, id, socket.fd, INFO, SIMPLE);
    const ask = (command: number, lengthBytes: number): number => {
      const request = { command, flags: 0, owner: id, cookie: 1, offset: 0, lengthBytes };
      const header = encodeHeader({ ...request, hasPayload: false }, false);
      socket.send(header.address, header.lengthBytes);
      socket.deliver(header.lengthBytes);
      connection.onReadable();
      return connection.requestCount;
    };
    const read = (lengthBytes: number): number => ask(NbdCmd.READ, lengthBytes);
    return { ask, read, checkProgress: connection.checkProgress.bind(connection) };
  };
  return { connect, closed };
}

void t.test('requests of one client: n - 1 and n are begun, n + 1 waits', async (t) => {
  const client = lane({ operationsPerConnection: 3 }).connect(1);
  t.strictSame(
    [1, 2, 3, 4].map(() => client.read(512)),
    [1, 2, 3, 3],
  );
});

void t.test('requests of a lane: n - 1 and n are begun, n + 1 waits', async (t) => {
  const table = new OperationTable(8, 3);
  const isTaken = (isOwn: boolean): boolean => table.take(0, isOwn) !== undefined;
  t.strictSame(
    [1, 2, 3, 4].map(() => isTaken(false)),
    [true, true, true, false],
  );
  t.ok(isTaken(true), 'the first of a client counts for nobody');
});

const BACKLOG_BYTES = 4 * 1024 * 1024;
const SIMPLE_HEADER_BYTES = 16;

void t.test('replies that are not taken: n - 1 and n, and the next is asked for', async (t) => {
  for (const [over, begun] of [
    [-1, 2],
    [0, 2],
    [1, 1],
  ] as const) {
    // Reads are answered at once, and no reply leaves.
    const { connect } = lane({}, (engine) => {
      engine.start = (operation) => operation.requester?.replyReady(operation);
    });
    const client = connect(1);
    client.read(BACKLOG_BYTES - SIMPLE_HEADER_BYTES + over);
    t.equal(client.ask(NbdCmd.FLUSH, 0), begun, `4 MiB and ${over}`);
  }
});

void t.test('30 s for somebody who holds what others wait for', async (t) => {
  const { connect, closed } = lane({});
  const client = connect(1);
  client.ask(NbdCmd.WRITE, 4096);
  // The first look finds it, and from then on the time counts.
  for (const nowMs of [1000, 30_999, 31_000]) client.checkProgress(nowMs);
  t.strictSame(closed, [], 'not before its time');
  client.checkProgress(31_001);
  t.strictSame(closed, ['client stopped in the middle of a write']);
});

void t.test('bytes of one client: n - 1 and n are begun, n + 1 waits', async (t) => {
  for (const [second, begun] of [
    [4095, 2],
    [4096, 2],
    [4097, 1],
  ] as const) {
    const client = lane({ bytesPerConnection: 8192 }).connect(1);
    client.read(4096);
    t.equal(client.read(second), begun, `4096 and ${second} of 8192`);
  }
  const client = lane({ bytesPerConnection: 8192 }).connect(1);
  t.equal(client.read(8193), 1, 'a larger one is begun alone');
  t.equal(client.read(1), 1, 'with nothing beside it');
  const other = lane({ bytesPerConnection: 8192 }).connect(1);
  other.read(8192);
  t.equal(other.ask(NbdCmd.FLUSH, 0), 2, 'what carries no data counts nothing');
  t.equal(other.ask(NbdCmd.WRITE_ZEROES, 65_536), 3);
  t.equal(other.ask(NbdCmd.WRITE, 1), 3, 'a write counts like a read');
});

void t.test('bytes of a lane: n - 1 and n are begun, n + 1 waits', async (t) => {
  for (const [second, begun] of [
    [4095, 1],
    [4096, 1],
    [4097, 0],
  ] as const) {
    const { connect } = lane({ bytes: 8192 });
    connect(1).read(4096);
    t.equal(connect(2).read(second), begun, `4096 and ${second} of 8192`);
  }
});

void t.test('each client has a little that counts for nobody', async (t) => {
  const { connect } = lane({ bytes: 8192, ownBytes: 1024 });
  connect(1).read(8192);
  const small = connect(2);
  t.equal(small.read(1023), 1);
  t.equal(small.read(1), 2, 'up to its own bytes');
  t.equal(small.read(1), 2, 'beyond them it waits like the others');
});

/** A client in line: it asks again when it is woken. */
class InLine {
  readonly #waiting: WaitingClients;
  readonly lengthBytes: number;
  hasTaken = false;

  constructor(waiting: WaitingClients, lengthBytes: number) {
    this.#waiting = waiting;
    this.lengthBytes = lengthBytes;
  }

  wake(): void {
    if (!this.hasTaken)
      this.hasTaken = this.#waiting.take(this, this.lengthBytes, false) !== undefined;
  }
}

void t.test('nobody overtakes', async (t) => {
  const table = new OperationTable(8, 8, 100);
  const waiting = new WaitingClients(table);
  const held = [table.take(60, false), table.take(40, false)];
  const clients = [50, 10, 10, 100].map((lengthBytes) => new InLine(waiting, lengthBytes));
  const taken = (): boolean[] => clients.map(({ hasTaken }) => hasTaken);
  for (const client of clients) client.wake();
  const give = (index: number): void => {
    const operation = held[index];
    if (operation !== undefined) table.give(operation);
    waiting.wakeFirst();
  };
  give(1);
  t.strictSame(taken(), [false, false, false, false], '40 are free, and the first wants 50');
  give(0);
  t.strictSame(taken(), [true, true, true, false], 'the first three go on, in order');
  t.notOk(waiting.isEmpty);
  const last = clients[3];
  if (last !== undefined) waiting.remove(last);
  t.ok(waiting.isEmpty, 'one that leaves waits no more');
});
