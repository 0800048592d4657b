// Goal: the engine answers every request exactly once and never mixes up a byte, whatever the
// sizes, alignments, order of completion and shortage of pages and slots.
// Method: a seeded random load from many owners against a backend in the same thread that completes
// in random order. Each owner has a byte range of its own, at odd offsets, so that owners share
// sectors: a lost update of a neighbour's bytes shows as a wrong byte. What the map of zeroes says
// meanwhile is held against the backend's disk.

import { NbdCmd, NbdErrno, NbdState } from 'nbd-server-ts/protocol';
import t from 'tap';
import type { Operation, Requester } from '../../src/dataplane/operation.ts';
import { roomBytes } from '../../src/dataplane/payload.ts';
import { allocateMemory, PAGE_SIZE } from '../../src/sys/index.ts';
import { runSeed } from '../support/random.ts';
import { createEngine, type EngineSetup, type EngineWorld } from './engine-world.ts';

/** A client of one request at a time, with a byte range of its own and a copy of what it holds. */
class Owner implements Requester {
  readonly first: number;
  readonly length: number;
  readonly expected: Uint8Array;
  readonly #world: EngineWorld;
  #payload: Uint8Array = new Uint8Array(0);
  #payloadAt = 0;
  current: Operation | undefined;
  command = 0;
  answers = 0;
  skipped = 0;

  constructor(world: EngineWorld, first: number, length: number) {
    this.#world = world;
    this.first = first;
    this.length = length;
    this.expected = new Uint8Array(length);
  }

  start(): void {
    const { random, engine } = this.#world;
    const operation = engine.take();
    if (operation === undefined) return;
    const commands = [NbdCmd.READ, NbdCmd.WRITE, NbdCmd.WRITE, NbdCmd.WRITE_ZEROES, NbdCmd.FLUSH];
    const command = random.pick(commands);
    const from = random.below(this.length);
    const length = random.below(this.length - from + 1);
    operation.requester = this;
    operation.command = command;
    operation.offset = command === NbdCmd.FLUSH ? 0 : this.first + from;
    operation.lengthBytes = command === NbdCmd.FLUSH ? 0 : length;
    operation.isFua = random.chance(0.2) && command !== NbdCmd.READ && command !== NbdCmd.FLUSH;
    this.current = operation;
    this.command = command;
    if (command === NbdCmd.WRITE) {
      const byte = 1 + random.below(255);
      this.#payload = new Uint8Array(allocateMemory(Math.max(1, length)).buffer).fill(byte);
      this.#payloadAt = 0;
      this.expected.fill(byte, from, from + length);
    } else if (command === NbdCmd.WRITE_ZEROES) {
      this.expected.fill(0, from, from + length);
    }
    engine.start(operation);
  }

  /** Sends some of the payload, as a socket would: in pieces of any size. */
  feed(): void {
    const operation = this.current;
    if (operation === undefined || this.command !== NbdCmd.WRITE) return;
    const { engine, random, pool } = this.#world;
    if (random.chance(0.05)) this.#park(operation);
    if (roomBytes(operation) === 0) engine.wantRoom(operation);
    const room = roomBytes(operation);
    if (room === 0 || operation.errno !== 0) return;
    const count = 1 + random.below(room);
    // Byte by byte through the page list: independent of fillFrom's own walk.
    let page = operation.fillPage;
    let at = operation.filledBytes % PAGE_SIZE;
    for (let i = 0; i < count; i++) {
      pool.view.setUint8(page * PAGE_SIZE + at, this.#payload[this.#payloadAt + i] ?? 0);
      at += 1;
      if (at === PAGE_SIZE) {
        at = 0;
        page = pool.next(page);
      }
    }
    this.#payloadAt += count;
    engine.filled(operation, count);
  }

  /** Gives way to others in the middle of the payload; what had to go is sent again. */
  #park(operation: Operation): void {
    const { engine } = this.#world;
    const parked = allocateMemory(PAGE_SIZE);
    const before = operation.filledBytes;
    const count = engine.park(operation, parked.address);
    const bytes = new Uint8Array(parked.buffer, 0, count);
    this.#payloadAt -= count;
    t.equal(operation.filledBytes, before - count);
    for (let i = 0; i < count; i++) {
      if (bytes[i] !== this.#payload[this.#payloadAt + i]) throw new Error('parked bytes differ');
    }
  }

  payloadWanted(): void {}

  payloadRefused(_operation: Operation, missingBytes: number): void {
    this.skipped += missingBytes;
  }

  replyReady(operation: Operation): void {
    t.equal(operation, this.current, 'only what was asked is answered');
    this.answers += 1;
    if (operation.command === NbdCmd.READ && operation.errno === 0) this.#checkData(operation);
    this.current = undefined;
    this.#world.engine.release(operation);
  }

  #checkData(operation: Operation): void {
    const { pool } = this.#world;
    const spill = operation.spillAddress;
    const from = operation.offset - this.first;
    let page = operation.firstPage;
    for (let i = 0; i < operation.lengthBytes; i++) {
      const at = operation.skewBytes + i;
      if (i > 0 && at % PAGE_SIZE === 0 && spill === 0) page = pool.next(page);
      const byte =
        spill === 0 ? pool.view.getUint8(page * PAGE_SIZE + (at % PAGE_SIZE)) : undefined;
      if (spill === 0 && byte !== this.expected[from + i]) {
        throw new Error(`byte ${from + i} of an owner is ${byte}, not ${this.expected[from + i]}`);
      }
    }
  }
}

/** How many bytes the map calls zero, all of which have to be. */
function zeroBytes({ backend, contexts }: EngineWorld): number {
  const { disk } = backend;
  let at = 0;
  let sum = 0;
  const map = contexts.get('base:allocation');
  for (const { lengthBytes, flags } of map.extents(undefined, 0, disk.length)) {
    if (flags === NbdState.ZERO) {
      sum += lengthBytes;
      const first = disk.subarray(at, at + lengthBytes).findIndex((byte) => byte !== 0);
      if (first >= 0) throw new Error(`byte ${at + first} is not zero`);
    }
    at += lengthBytes;
  }
  return sum;
}

const setups: Omit<EngineSetup, 'seed'>[] = [
  { poolPages: 64, ringPages: 1, maxSegments: 11, sectorBytes: 512, sizeBytes: 1 << 20 },
  { poolPages: 24, ringPages: 1, maxSegments: 11, sectorBytes: 4096, sizeBytes: 1 << 20 },
  // Requests on the ring may be larger than the pool.
  { poolPages: 24, ringPages: 1, maxSegments: 128, sectorBytes: 512, sizeBytes: 1 << 20 },
  { poolPages: 200, ringPages: 2, maxSegments: 32, sectorBytes: 512, sizeBytes: 1 << 20 },
];

for (const partial of setups) {
  const setup = { ...partial, seed: runSeed() };
  void t.test(`random load: ${JSON.stringify(setup)}`, (t) => {
    const world = createEngine(setup);
    const { engine, ring, backend, random, pool } = world;
    const owners: Owner[] = [];
    for (let at = 77; at < setup.sizeBytes - 200_000; ) {
      const length = random.pick([90, 700, 5000, 60_000, 150_000]);
      owners.push(new Owner(world, at, length));
      at += length;
    }
    const free = pool.freeCount;
    let mostZeroBytes = 0;
    for (let turn = 0; turn < 6000; turn++) {
      const owner = random.pick(owners);
      if (owner.current === undefined && turn < 5000) owner.start();
      for (const other of owners) if (random.chance(0.5) || turn > 5000) other.feed();
      ring.publish();
      backend.step(random.below(8));
      t.ok(engine.collect() >= 0 || ring.fault === undefined);
      engine.pump();
      if (turn % 16 === 0) mostZeroBytes = Math.max(mostZeroBytes, zeroBytes(world));
    }
    for (let i = 0; i < 20_000 && !engine.isIdle; i++) {
      for (const other of owners) other.feed();
      ring.publish();
      backend.step(8);
      engine.collect();
      engine.pump();
    }
    t.equal(ring.fault, undefined);
    t.ok(engine.isIdle, 'everything is answered');
    t.equal(pool.freeCount, free, 'all pages are back');
    t.equal(ring.inFlight, 0);
    for (const owner of owners) {
      const held = backend.disk.subarray(owner.first, owner.first + owner.length);
      t.ok(Buffer.from(held).equals(Buffer.from(owner.expected)), `owner at ${owner.first}`);
    }
    t.ok(backend.flushes > 0);
    t.ok(mostZeroBytes > 0, `up to ${mostZeroBytes} bytes were called zero`);
    t.end();
  });
}

void t.test('zeroes that are cut short are not called zeroes', (t) => {
  const world = createEngine({ ...(setups[0] as EngineSetup), seed: runSeed() });
  const { engine, ring, backend } = world;
  const zero = (isAbandoned: boolean): void => {
    const operation = engine.take();
    if (operation === undefined) throw new Error('no operation');
    operation.command = NbdCmd.WRITE_ZEROES;
    operation.offset = 0;
    operation.lengthBytes = 1 << 20;
    operation.requester = {
      replyReady: (done) => engine.release(done),
      payloadWanted: () => undefined,
      payloadRefused: () => undefined,
    };
    engine.start(operation);
    for (let turn = 0; !engine.isIdle; turn++) {
      if (isAbandoned && turn === 3) engine.abandon(operation);
      ring.publish();
      backend.step(1);
      engine.collect();
      engine.pump();
    }
  };
  backend.disk.fill(1);
  zero(true);
  t.equal(backend.disk[0], 0, 'it has begun');
  t.equal(backend.disk[(1 << 20) - 1], 1, 'and not ended');
  t.equal(zeroBytes(world), 0);
  zero(false);
  t.equal(zeroBytes(world), 1 << 20);
  backend.errorRate = 1;
  zero(false);
  t.equal(zeroBytes(world), 0, 'nor are those that fail');
  t.end();
});

void t.test('an error of any part is the error of the whole', (t) => {
  const world = createEngine({ ...(setups[0] as EngineSetup), seed: runSeed() });
  const { engine, ring, backend } = world;
  backend.errorRate = 1;
  let answer: number | undefined;
  const operation = engine.take();
  if (operation === undefined) throw new Error('no operation');
  operation.command = NbdCmd.READ;
  operation.offset = 0;
  operation.lengthBytes = 100_000;
  operation.requester = {
    replyReady: (done) => {
      answer = done.errno;
      engine.release(done);
    },
    payloadWanted: () => undefined,
    payloadRefused: () => undefined,
  };
  engine.start(operation);
  ring.publish();
  backend.step(1);
  engine.collect();
  t.equal(answer, undefined, 'no answer before all parts are back');
  backend.step(10);
  engine.collect();
  t.equal(answer, NbdErrno.EIO);
  t.ok(engine.isIdle);
  t.end();
});
