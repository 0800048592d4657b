// Goal: small neighbours of one turn share a request on the ring, as the specification lays it out,
// and yet each is answered for itself: also when the request fails, or the ring is lost with it.

import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import t from 'tap';
import { BackRing, blkifLayout, createRingArea, encodeResponse } from '../../src/blkif/index.ts';
import { Counter } from '../../src/dataplane/counters.ts';
import type { Operation } from '../../src/dataplane/operation.ts';
import { roomBytes } from '../../src/dataplane/payload.ts';
import { PAGE_SIZE, viewMemory } from '../../src/sys/index.ts';
import { ModelBackend } from '../support/model-backend.ts';
import { runSeed } from '../support/random.ts';
import { createEngine, createLaneRing, type EngineWorld } from './engine-world.ts';

const setup = {
  poolPages: 64,
  ringPages: 1,
  maxSegments: 11,
  sectorBytes: 512,
  sizeBytes: 1 << 20,
};
/** Where a ring that starts at 0xfffffff0 has its first slot: index 16 of 32, after the header. */
const FIRST_SLOT = 64 + 16 * 112;

function create(): EngineWorld {
  const world = createEngine({ ...setup, seed: runSeed() });
  for (let at = 0; at < setup.sizeBytes; at++) world.backend.disk[at] = (at >> 12) + (at & 0xff);
  return world;
}

/** Starts a request and returns what will be known of its answer. */
function ask({ engine, pool }: EngineWorld, command: number, offset: number, lengthBytes: number) {
  const answer: { errno?: number; count: number; bytes: number[] } = { count: 0, bytes: [] };
  const operation = engine.take();
  if (operation === undefined) throw new Error('no operation');
  operation.command = command;
  operation.offset = offset;
  operation.lengthBytes = lengthBytes;
  operation.requester = {
    payloadWanted: (wanted: Operation) => {
      if (roomBytes(wanted) === 0) engine.wantRoom(wanted);
    },
    payloadRefused: () => undefined,
    replyReady: (done: Operation) => {
      answer.errno = done.errno;
      answer.count += 1;
      let page = done.firstPage;
      const lengthBytes = command === NbdCmd.READ && done.errno === 0 ? done.lengthBytes : 0;
      for (let at = 0; at < lengthBytes; at += PAGE_SIZE) {
        answer.bytes.push(pool.view.getUint8(page * PAGE_SIZE + (at === 0 ? done.skewBytes : 0)));
        page = pool.next(page);
      }
      engine.release(done);
    },
  };
  engine.start(operation);
  if (command === NbdCmd.WRITE) {
    if (roomBytes(operation) === 0) engine.wantRoom(operation);
    pool.view.setUint8(operation.fillPage * PAGE_SIZE, 0xee);
    engine.filled(operation, lengthBytes);
  }
  return answer;
}

function finish({ engine, ring, backend }: EngineWorld): void {
  for (let turn = 0; turn < 100 && !engine.isIdle; turn++) {
    ring.publish();
    backend.step(8);
    engine.collect();
    engine.pump();
  }
}

void t.test('the bytes on the ring', (t) => {
  const world = create();
  const { laneRing, ring, pool } = world;
  const grefs: number[] = [];
  const take = (offset: number, lengthBytes: number) => {
    const before = pool.freeCount;
    const answer = ask(world, NbdCmd.READ, offset, lengthBytes);
    t.ok(pool.freeCount < before);
    return answer;
  };
  const answers = [take(0x8000, 4096), take(0x9000, 1024), take(0x9400, 8192)];
  const apart = take(0x20000, 512);
  ring.publish();
  t.match(ring, { inFlight: 4, slotsUsed: 2 });
  const slots = Buffer.from(viewMemory(laneRing.address, PAGE_SIZE));
  for (const segment of [0, 1, 2, 3]) grefs.push(slots.readUInt32LE(FIRST_SLOT + 24 + 8 * segment));
  t.equal(new Set(grefs).size, 4, 'each page once');
  const hex = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes.toString('hex');
  };
  // struct blkif_request (xen/include/public/io/blkif.h) of x86_64: operation, nr_segments, handle,
  // padding, id, sector_number, then for each segment gref, first_sect, last_sect, padding.
  t.equal(
    slots.subarray(FIRST_SLOT, FIRST_SLOT + 24).toString('hex'),
    '00' + '04' + '10ca' + '00000000' + '0000000000000000' + '4000000000000000',
  );
  t.equal(
    slots.subarray(FIRST_SLOT + 24, FIRST_SLOT + 56).toString('hex'),
    [
      `${hex(grefs[0] ?? 0)}00070000`,
      `${hex(grefs[1] ?? 0)}00010000`,
      `${hex(grefs[2] ?? 0)}00070000`,
      `${hex(grefs[3] ?? 0)}00070000`,
    ].join(''),
  );
  t.equal(slots.readUInt8(FIRST_SLOT + 112 + 1), 1, 'what is elsewhere has a slot of its own');
  t.equal(slots.readUInt32LE(0) >>> 0, 0xffff_fff2, 'req_prod');
  finish(world);
  t.strictSame(answers[0]?.bytes, [8]);
  t.strictSame(answers[1]?.bytes, [9]);
  t.strictSame(answers[2]?.bytes, [9, 10]);
  t.strictSame(apart.bytes, [32]);
  for (const answer of [...answers, apart]) t.match(answer, { errno: 0, count: 1 });
  t.equal(ring.requestCount, 2);
  t.equal(ring.joinedCount, 2);
  t.match(ring, { inFlight: 0, slotsUsed: 0 });
  t.equal(pool.freeCount, setup.poolPages);
  t.end();
});

void t.test('what does not join', (t) => {
  const requests = (start: (world: EngineWorld) => void): number => {
    const world = create();
    start(world);
    finish(world);
    t.ok(world.engine.isIdle);
    return world.ring.requestCount;
  };
  t.equal(
    requests((world) => {
      for (let page = 0; page < 12; page++) ask(world, NbdCmd.READ, page * 4096, 4096);
    }),
    2,
    'a twelfth page is too many for a direct request',
  );
  t.equal(
    requests((world) => {
      ask(world, NbdCmd.READ, 0, 4096);
      ask(world, NbdCmd.WRITE, 4096, 4096);
    }),
    2,
    'a write behind a read',
  );
  t.equal(
    requests((world) => {
      ask(world, NbdCmd.READ, 4096, 4096);
      ask(world, NbdCmd.READ, 0, 4096);
    }),
    2,
    'one that comes before',
  );
  t.equal(
    requests((world) => {
      ask(world, NbdCmd.READ, 0, 4096);
      world.ring.publish();
      ask(world, NbdCmd.READ, 4096, 4096);
    }),
    2,
    'one that comes when the backend has seen the first',
  );
  t.equal(
    requests((world) => {
      ask(world, NbdCmd.READ, 0, 4096);
      ask(world, NbdCmd.FLUSH, 0, 0);
      ask(world, NbdCmd.READ, 4096, 4096);
    }),
    3,
    'one behind a flush',
  );
  t.equal(
    requests((world) => {
      for (let page = 0; page < 4; page++) ask(world, NbdCmd.WRITE, page * 4096, 4096);
    }),
    1,
    'but four writes do',
  );
  t.end();
});

for (const command of [NbdCmd.READ, NbdCmd.WRITE]) {
  void t.test(`a bad sector fails only who asked for it (command ${command})`, (t) => {
    const world = create();
    world.backend.badSector = 2 * 8 + 3;
    const answers = [0, 1, 2, 3].map((page) => ask(world, command, page * 4096, 4096));
    finish(world);
    t.strictSame(
      answers.map(({ errno, count }) => [errno, count]),
      [
        [0, 1],
        [0, 1],
        [NbdErrno.EIO, 1],
        [0, 1],
      ],
    );
    t.equal(world.pool.freeCount, setup.poolPages, 'all pages are back');
    t.equal(world.ring.inFlight, 0);
    const { counters } = world;
    const failed = counters.get(Counter.FAILED_READS) + counters.get(Counter.FAILED_WRITES);
    t.equal(failed, 1, 'counted once, and nobody else');
    if (command === NbdCmd.WRITE) {
      const { disk } = world.backend;
      t.strictSame([disk[0], disk[4096], disk[2 * 4096], disk[3 * 4096]], [0xee, 0xee, 2, 0xee]);
    }
    t.end();
  });
}

void t.test('no response may name one that has joined', (t) => {
  const world = create();
  const { engine, laneRing, ring } = world;
  ask(world, NbdCmd.READ, 0, 4096);
  ask(world, NbdCmd.READ, 4096, 4096);
  ring.publish();
  const { address, abi } = laneRing;
  const buffer = viewMemory(address, PAGE_SIZE);
  const back = BackRing.attach(createRingArea({ buffer, offsetBytes: 0, ringPageCount: 1, abi }));
  const idOfFirst = new DataView(buffer).getUint32(FIRST_SLOT + 8, true);
  back.consume(back.pendingRequests());
  // Records are handed out in the order of their ids.
  encodeResponse(back.view, back.reserveSlot(), blkifLayout(abi), idOfFirst + 1, 0, 0);
  back.publish();
  t.equal(engine.collect(), -1);
  t.match(ring.fault, `it answered request ${idOfFirst + 1}, which is not in flight`);
  t.end();
});

/** Gives the world another ring, with a backend of its own on it. */
function replaceRing(world: EngineWorld): EngineWorld {
  const { ring, disk, pages, random } = world;
  ring.suspend();
  const laneRing = createLaneRing({ ...setup, seed: 0 });
  ring.resume(laneRing, disk);
  const place = { ringAddress: laneRing.address, ringPageCount: 1, abi: laneRing.abi };
  const backend = new ModelBackend(place, pages.address, setup.sizeBytes, random);
  return { ...world, backend };
}

void t.test('what fails while the backend closes is asked again of the next', (t) => {
  const world = create();
  const { engine, ring, backend, pool } = world;
  const answers = [0, 1].map((page) => ask(world, NbdCmd.READ, page * 4096, 4096));
  ring.publish();
  ring.hold();
  backend.badSector = 0;
  backend.step(1);
  t.equal(engine.collect(), 1);
  engine.pump();
  t.match(ring, { inFlight: 0, replaying: 2, hasRoom: false });
  t.ok(ring.canRelay, 'lanes that share the ring can still end what they have asked');
  t.strictSame(
    answers.map(({ count }) => count),
    [0, 0],
  );
  finish(replaceRing(world));
  t.match(answers, [
    { errno: 0, count: 1 },
    { errno: 0, count: 1 },
  ]);
  t.equal(pool.freeCount, setup.poolPages);
  t.end();
});

void t.test('what fails while the backend closes for good is answered all the same', (t) => {
  for (const command of [NbdCmd.READ, NbdCmd.WRITE]) {
    const world = create();
    const { engine, ring, backend } = world;
    const answers = [0, 1, 2].map((page) => ask(world, command, page * 4096, 4096));
    ring.publish();
    ring.hold();
    backend.badSector = 0;
    backend.step(1);
    engine.collect();
    engine.pump();
    t.match(ring, { inFlight: 0, replaying: 3 }, 'the frontend may close');
    ring.suspend();
    t.ok(answers.every(({ count }) => count === 0));
    engine.breakDown();
    for (const { errno, count } of answers) t.strictSame([errno, count], [NbdErrno.EIO, 1]);
    t.ok(engine.isIdle);
    const late = ask(world, NbdCmd.READ, 0, 512);
    t.strictSame([late.errno, late.count], [NbdErrno.EIO, 1]);
  }
  t.end();
});

void t.test('a ring is lost with a joined request on it', (t) => {
  const world = create();
  const { engine, ring, pool } = world;
  const answers = [0, 1, 2].map((page) => ask(world, NbdCmd.WRITE, page * 4096, 4096));
  ring.publish();
  const { backend } = replaceRing(world);
  finish({ ...world, backend });
  t.ok(engine.isIdle);
  t.strictSame(
    answers.map(({ errno, count }) => [errno, count]),
    [
      [0, 1],
      [0, 1],
      [0, 1],
    ],
  );
  t.strictSame(
    [0, 1, 2].map((page) => backend.disk[page * 4096]),
    [0xee, 0xee, 0xee],
  );
  t.equal(pool.freeCount, setup.poolPages);
  t.end();
});
