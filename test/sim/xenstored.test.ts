/**
 * Goal: the simulated xenstored answers like the real one, byte for byte. Method: packets typed by
 * hand from xen/include/public/io/xs_wire.h (16-byte header: type, req_id, tx_id, len; u32 little
 * endian) go in, whole and cut, and what comes out is compared as hex. Tasks run in a queue of the
 * test's own.
 */

import t from 'tap';
import { type Schedule, Xenstored } from '../../src/sim/xenstored.ts';

/** A queue of tasks that runs when told to. */
class Tasks {
  readonly waiting: (() => void)[] = [];
  readonly schedule: Schedule = (task) => this.waiting.push(task);

  run(): void {
    for (let task = this.waiting.shift(); task !== undefined; task = this.waiting.shift()) task();
  }
}

class Peer {
  readonly received: string[] = [];
  closed: string | undefined;
  readonly #tasks: Tasks;
  readonly #connection: ReturnType<Xenstored['connect']>;

  constructor(server: Xenstored, tasks: Tasks, domid: number) {
    this.#tasks = tasks;
    this.#connection = server.connect(domid, {
      onData: (bytes) => this.received.push(Buffer.from(bytes).toString('latin1')),
      onClose: (reason) => {
        this.closed = reason;
      },
    });
  }

  push(bytes: Uint8Array): void {
    this.#connection.push(bytes);
  }

  close(): void {
    this.#connection.close();
  }

  /** Sends one message and gives what came back, one text for each packet. */
  say(type: number, body: string, txId = 0): string[] {
    this.push(packet(type, 7, txId, body));
    this.#tasks.run();
    return this.take();
  }

  take(): string[] {
    return this.received.splice(0).map((text) => {
      const bytes = Buffer.from(text, 'latin1');
      return `${bytes.readUInt32LE(0)}:${text.slice(16)}`;
    });
  }
}

function packet(type: number, reqId: number, txId: number, body: string): Uint8Array {
  const bytes = Buffer.alloc(16 + body.length);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(reqId, 4);
  bytes.writeUInt32LE(txId, 8);
  bytes.writeUInt32LE(body.length, 12);
  bytes.write(body, 16, 'latin1');
  return bytes;
}

function start(): { server: Xenstored; tasks: Tasks; dom0: Peer; guest: Peer } {
  const tasks = new Tasks();
  const server = new Xenstored({ schedule: tasks.schedule });
  const dom0 = new Peer(server, tasks, 0);
  const guest = new Peer(server, tasks, 1);
  dom0.say(12, '/local/domain/1\0');
  dom0.say(14, '/local/domain/1\0n1\0r0\0');
  return { server, tasks, dom0, guest };
}

const OK = (type: number): string[] => [`${type}:OK\0`];
const ERROR = (name: string): string[] => [`16:${name}\0`];

void t.test('golden packets, whole and byte by byte', async (t) => {
  for (const size of [1000, 1, 3]) {
    const { tasks, guest } = start();
    // WRITE (11), req_id 0x01020304, "a\0hello"; then READ (2) of "a\0" with req_id 9.
    const stream = Buffer.from(
      '0b00000004030201000000000700000061006 8656c6c6f'.replaceAll(' ', '') +
        '02000000090000000000000002000000' +
        '6100',
      'hex',
    );
    for (let at = 0; at < stream.length; at += size) guest.push(stream.subarray(at, at + size));
    tasks.run();
    t.same(
      guest.received.map((text) => Buffer.from(text, 'latin1').toString('hex')),
      ['0b0000000403020100000000030000004f4b00', '0200000009000000000000000500000068656c6c6f'],
      `in pieces of ${size}`,
    );
  }
});

void t.test('nodes', async (t) => {
  const { dom0, guest } = start();
  t.same(guest.say(2, 'x\0'), ERROR('ENOENT'));
  t.same(guest.say(11, 'x/y/z\0deep'), OK(11), 'missing parents are made');
  t.same(guest.say(2, 'x/y\0'), ['2:'], 'and are empty');
  t.same(guest.say(2, '/local/domain/1/x/y/z\0'), ['2:deep'], 'relative paths start at home');
  t.same(guest.say(1, 'x\0'), ['1:y\0']);
  t.same(guest.say(1, 'x/y/z\0'), ['1:']);
  t.same(guest.say(12, 'x/y/z\0'), OK(12), 'mkdir leaves a node alone');
  t.same(guest.say(2, 'x/y/z\0'), ['2:deep']);
  t.same(guest.say(13, 'x/none\0'), OK(13), 'rm of nothing is fine below a parent');
  t.same(guest.say(13, 'none/none\0'), ERROR('ENOENT'));
  t.same(guest.say(13, 'x\0'), OK(13));
  t.same(guest.say(1, 'x\0'), ERROR('ENOENT'));
  t.same(dom0.say(13, '/\0'), ERROR('EINVAL'));
  t.same(dom0.say(2, '/\0'), ['2:']);
  for (const bad of ['a//b\0', 'a/\0', 'a b\0', '\0', 'a', '', 'a\0b\0', `${'a'.repeat(2049)}\0`]) {
    t.same(guest.say(2, bad), ERROR('EINVAL'), JSON.stringify(bad.slice(0, 20)));
  }
  t.same(guest.say(20, 'a\0'), ERROR('ENOSYS'));
  t.same(guest.say(99, 'a\0'), ERROR('ENOSYS'));
  t.same(guest.say(15, 'a\0b\0'), ERROR('ENOSYS'), 'nobody sends events to xenstored');
  t.same(guest.say(10, '5\0'), ['10:/local/domain/5\0']);
  t.same(guest.say(17, '1\0'), ERROR('EACCES'), 'is for the privileged');
  t.same(dom0.say(17, '1\0'), ['17:F\0']);
});

void t.test('permissions', async (t) => {
  const { dom0, guest } = start();
  dom0.say(11, '/secret/a\0x');
  t.same(guest.say(2, '/secret/a\0'), ERROR('EACCES'));
  t.same(guest.say(2, '/secret/none\0'), ERROR('EACCES'), 'what is missing there is hidden too');
  dom0.say(14, '/secret/a\0n0\0r1\0');
  t.same(guest.say(2, '/secret/a\0'), ['2:x']);
  t.same(guest.say(11, '/secret/a\0y'), ERROR('EACCES'));
  t.same(guest.say(3, '/secret/a\0'), ['3:n0\0r1\0']);
  t.same(guest.say(14, '/secret/a\0b1\0'), ERROR('EACCES'), 'only the owner may');
  guest.say(11, 'mine\0v');
  t.same(guest.say(3, 'mine\0'), ['3:n1\0r0\0'], 'inherited; the creator owns it');
  t.same(guest.say(14, 'mine\0n0\0'), ERROR('EPERM'), 'an owner cannot be given away');
  t.same(guest.say(14, 'mine\0n1\0b3\0'), OK(14));
  t.same(dom0.say(2, '/local/domain/1/mine\0'), ['2:v'], 'the privileged domain may do all');
  t.same(guest.say(14, 'mine\0n1\0r2\0r3\0r4\0r5\0r6\0'), ERROR('ENOSPC'));
  t.same(guest.say(14, 'mine\0\0'), ERROR('EINVAL'));
  t.same(guest.say(14, 'mine\0x1\0'), ERROR('EINVAL'));
});

void t.test('quotas of an unprivileged domain', async (t) => {
  const { dom0, guest } = start();
  t.same(guest.say(11, `big\0${'v'.repeat(2048)}`), OK(11));
  t.same(guest.say(11, `big\0${'v'.repeat(2049)}`), ERROR('ENOSPC'));
  t.same(dom0.say(11, `/big\0${'v'.repeat(3000)}`), OK(11));
  let made = 2;
  for (; made < 2000; made++) {
    if (guest.say(12, `many/n${made}\0`)[0] !== '12:OK\0') break;
  }
  t.equal(made, 1000 - 3 + 2, 'home, big and many leave 997');
  t.same(guest.say(12, 'many/more\0'), ERROR('ENOSPC'));
  for (let index = 0; index < 128; index++) guest.say(4, `big\0t${index}\0`);
  t.same(guest.say(4, 'big\0more\0'), ERROR('E2BIG'));
  const ids = Array.from({ length: 10 }, () => guest.say(6, '\0')[0]);
  t.same(ids[9], '6:10\0');
  t.same(guest.say(6, '\0'), ERROR('ENOSPC'));
});

void t.test('a long directory comes in parts', async (t) => {
  const { dom0 } = start();
  const names = Array.from(
    { length: 400 },
    (_, index) => `child-${String(index).padStart(5, '0')}`,
  );
  for (const name of names) dom0.say(12, `/long/${name}\0`);
  t.same(dom0.say(1, '/long\0'), ERROR('E2BIG'));
  const listed: string[] = [];
  let offset = 0;
  for (let part = 0; part < 10; part++) {
    const [reply = ''] = dom0.say(22, `/long\0${offset}\0`);
    const [generation, ...rest] = reply.slice('22:'.length).split('\0');
    t.match(generation, /^\d+$/);
    // Each name ends in NUL, and the last part in one more.
    const isLast = reply.endsWith('\0\0');
    const found = rest.filter((name) => name !== '');
    listed.push(...found);
    offset += found.reduce((sum, name) => sum + name.length + 1, 0);
    if (isLast) break;
  }
  t.same(listed, names);
});

void t.test('watches', async (t) => {
  const { dom0, guest } = start();
  t.same(guest.say(4, 'dev\0tok\0'), ['4:OK\0', '15:dev\0tok\0'], 'fires once at once');
  t.same(guest.say(4, '/local/domain/1/dev\0abs\0'), ['4:OK\0', '15:/local/domain/1/dev\0abs\0']);
  t.same(guest.say(4, 'dev\0tok\0'), ERROR('EEXIST'));
  dom0.say(11, '/local/domain/1/dev/a\0v');
  t.same(
    guest.take(),
    ['15:dev/a\0tok\0', '15:/local/domain/1/dev/a\0abs\0'],
    'below the path, relative as registered',
  );
  t.same(
    guest.say(11, 'dev/b/c\0v'),
    ['15:dev/b/c\0tok\0', '15:/local/domain/1/dev/b/c\0abs\0', '11:OK\0'],
    'our own change is told before the answer, and parents are not told apart',
  );
  guest.say(4, 'dev/b/c\0exact\0');
  t.same(
    guest.say(13, 'dev/b\0'),
    ['15:dev/b/c\0exact\0', '15:dev/b\0tok\0', '15:/local/domain/1/dev/b\0abs\0', '13:OK\0'],
    'a removed child is told exactly, the removed node to all above',
  );
  dom0.say(11, '/local/domain/1/device\0v');
  t.same(guest.take(), [], 'a name that begins alike is not below');
  t.same(guest.say(5, 'dev\0other\0'), ERROR('ENOENT'));
  t.same(guest.say(5, 'dev\0tok\0'), OK(5));
  t.same(guest.say(5, '/local/domain/1/dev\0abs\0'), OK(5));
  dom0.say(11, '/local/domain/1/dev/a\0w');
  t.same(guest.take(), []);
  // Events of nodes that may not be read are not told.
  guest.say(4, '/hidden\0h\0');
  dom0.say(11, '/hidden/a\0v');
  t.same(guest.take(), []);
  dom0.say(14, '/hidden/a\0n0\0r1\0');
  t.same(guest.take(), ['15:/hidden/a\0h\0'], 'what becomes readable is told');
  t.same(guest.say(21, '\0'), OK(21));
  dom0.say(11, '/hidden/a\0w');
  t.same(guest.take(), [], 'RESET_WATCHES has removed it');
});

void t.test('special watches and domains that come and go', async (t) => {
  const { server, tasks, dom0, guest } = start();
  dom0.say(4, '@introduceDomain\0i\0');
  dom0.say(4, '@releaseDomain\0r\0');
  server.introduce(1);
  tasks.run();
  t.same(dom0.take(), ['15:@introduceDomain\0i\0']);
  t.same(dom0.say(17, '1\0'), ['17:T\0']);
  server.release(1);
  tasks.run();
  t.same(dom0.take(), ['15:@releaseDomain\0r\0']);
  t.equal(guest.closed, 'the domain was released');
  t.equal(server.connectionCount, 1);
});

void t.test('transactions', async (t) => {
  const { dom0, guest } = start();
  guest.say(11, 'a\0old');
  t.same(guest.say(6, '\0'), ['6:1\0']);
  guest.say(4, 'a\0w\0');
  guest.take();
  t.same(guest.say(11, 'a\0new', 1), OK(11));
  t.same(guest.say(2, 'a\0', 1), ['2:new'], 'sees its own change');
  t.same(guest.say(2, 'a\0'), ['2:old'], 'which nobody else sees');
  t.same(guest.say(6, '\0', 1), ERROR('EBUSY'));
  t.same(guest.say(7, 'x\0', 1), ERROR('EINVAL'));
  t.same(guest.say(7, 'T\0', 1), ['15:a\0w\0', '7:OK\0'], 'watches fire after the commit');
  t.same(guest.say(2, 'a\0'), ['2:new']);
  t.same(guest.say(7, 'T\0', 1), ERROR('ENOENT'));
  t.same(guest.say(2, 'a\0', 77), ERROR('ENOENT'));
  t.same(guest.say(7, 'T\0'), ERROR('ENOENT'));

  t.same(guest.say(6, '\0'), ['6:2\0']);
  guest.say(11, 'a\0lost', 2);
  t.same(guest.say(7, 'F\0', 2), OK(7));
  t.same(guest.say(2, 'a\0'), ['2:new']);

  const conflicts: [what: string, inside: [number, string], outside: [number, string], boolean][] =
    [
      ['a value that was read', [2, 'a\0'], [11, '/local/domain/1/a\0other'], true],
      ['a node that was not there', [2, 'b\0'], [11, '/local/domain/1/b\0now'], true],
      ['a list that was read', [1, '/local/domain/1\0'], [11, '/local/domain/1/c\0now'], true],
      ['a node that was written', [11, 'a\0mine'], [11, '/local/domain/1/a\0theirs'], true],
      ['permissions', [2, 'a\0'], [14, '/local/domain/1/a\0n1\0r3\0'], true],
      ['a removed node', [2, 'a\0'], [13, '/local/domain/1/a\0'], true],
      ['two children of one node', [11, 'd1\0v'], [11, '/local/domain/1/d2\0v'], true],
      ['another node', [2, '/local/domain/1\0'], [11, '/elsewhere\0v'], false],
    ];
  for (const [index, [what, inside, outside, isConflict]] of conflicts.entries()) {
    guest.say(11, 'a\0start');
    dom0.say(13, '/local/domain/1/b\0');
    const id = 3 + index;
    t.same(guest.say(6, '\0'), [`6:${id}\0`]);
    guest.say(inside[0], inside[1], id);
    guest.say(11, 'result\0done', id);
    dom0.say(outside[0], outside[1]);
    guest.take();
    const reply = guest.say(7, 'T\0', id).at(-1);
    t.equal(reply, isConflict ? '16:EAGAIN\0' : '7:OK\0', what);
    t.same(guest.say(2, 'result\0'), isConflict ? ERROR('ENOENT') : ['2:done'], what);
    guest.say(13, 'result\0');
  }
});

void t.test('a snapshot does not change under a transaction', async (t) => {
  const { dom0, guest } = start();
  guest.say(11, 'a\0one');
  guest.say(6, '\0');
  dom0.say(11, '/local/domain/1/a\0two');
  t.same(guest.say(2, 'a\0', 1), ['2:one']);
  t.same(guest.say(7, 'T\0', 1), ERROR('EAGAIN'));
});

void t.test(
  'order: tasks of one connection stay in order, whatever the scheduler does',
  async (t) => {
    const waiting: (() => void)[] = [];
    const server = new Xenstored({ schedule: (task) => waiting.push(task) });
    const tasks = new Tasks();
    const one = new Peer(server, tasks, 0);
    const two = new Peer(server, tasks, 0);
    for (let index = 0; index < 20; index++) {
      one.push(packet(11, index, 0, `/one/${index}\0v`));
      two.push(packet(11, index, 0, `/two/${index}\0v`));
    }
    let seed = 12345;
    while (waiting.length > 0) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      const [task] = waiting.splice(seed % waiting.length, 1);
      task?.();
    }
    for (const peer of [one, two]) {
      t.same(
        peer.received.map((text) => Buffer.from(text, 'latin1').readUInt32LE(4)),
        Array.from({ length: 20 }, (_, index) => index),
      );
    }
  },
);

void t.test('a client that breaks the protocol loses its connection', async (t) => {
  const { server, tasks, guest, dom0 } = start();
  guest.push(Buffer.from('0200000000000000000000000110000000', 'hex'));
  tasks.run();
  t.match(guest.closed, /4097 bytes/);
  t.equal(server.connectionCount, 1);
  dom0.close();
  t.equal(server.connectionCount, 0);
  dom0.push(packet(2, 0, 0, '/\0'));
  tasks.run();
  t.same(dom0.received, []);
});
