// Goal: a lane that shares another's ring is served through it, in turn with the owner however busy
// that is, and what a guest asked is forgotten with the ring, not asked again by the owner.
// Method: the owner's ring ends in the model backend of test/support; guests are rings of the test.
import { NbdCmd } from 'nbd-server-ts/protocol';
import t from 'tap';
import {
  BlkifAbi,
  BlkifOp,
  blkifLayout,
  createResponse,
  createRingArea,
  decodeResponse,
  encodeDirectRequest,
  encodeFlush,
  encodeSegment,
  FrontRing,
  segmentOffset,
} from '../../src/blkif/index.ts';
import { Counter, Counters } from '../../src/dataplane/counters.ts';
import { Engine } from '../../src/dataplane/engine.ts';
import { GuestRings } from '../../src/dataplane/guest-rings.ts';
import type { DiskShape } from '../../src/dataplane/lane-config.ts';
import { LaneContexts } from '../../src/dataplane/lane-contexts.ts';
import { PagePool } from '../../src/dataplane/page-pool.ts';
import { createSharedRanges } from '../../src/dataplane/range-lock.ts';
import { RingRequests } from '../../src/dataplane/ring-requests.ts';
import { createZeroMap } from '../../src/dataplane/zero-map.ts';
import {
  allocateMemory,
  closeFd,
  createEventFd,
  drainEventFd,
  PAGE_SIZE,
} from '../../src/sys/index.ts';
import { ModelBackend } from '../support/model-backend.ts';
import { runSeed, SeededRandom } from '../support/random.ts';

const ABI = BlkifAbi.X86_64;
const LAYOUT = blkifLayout(ABI);
const SIZE = 1 << 20;
const POOL_PAGES = 64;
/** Pages of the guests, behind the owner's. */
const GUEST_PAGE = POOL_PAGES + 16;
const DISK: DiskShape = {
  sectorBytes: 512,
  flush: 'flush-cache',
  canFallBackToBarrier: false,
  discard: undefined,
};

function newRing() {
  const memory = allocateMemory(PAGE_SIZE);
  const area = createRingArea({
    buffer: memory.buffer,
    offsetBytes: 0,
    ringPageCount: 1,
    abi: ABI,
  });
  return { memory, ring: FrontRing.initialise(area) };
}

/** A lane without a queue, as far as its host can tell. */
class Guest {
  readonly ring: FrontRing;
  readonly address: number;
  readonly fd = createEventFd();
  readonly answers: { id: number; operation: number; status: number }[] = [];
  readonly #page: number;

  constructor(number: number) {
    const { memory, ring } = newRing();
    this.ring = ring;
    this.address = memory.address;
    this.#page = GUEST_PAGE + number;
  }

  write(id: number, sector: number): void {
    const { view } = this.ring;
    const at = this.ring.reserveSlot();
    encodeDirectRequest(view, at, LAYOUT, BlkifOp.BLKIF_OP_WRITE, 51712, id, sector, 1);
    encodeSegment(view, segmentOffset(at, LAYOUT, 0), this.#page, 0, 7);
    this.ring.publish();
  }

  flush(id: number): void {
    encodeFlush(this.ring.view, this.ring.reserveSlot(), LAYOUT, 51712, id);
    this.ring.publish();
  }

  collect(): void {
    const response = createResponse();
    const count = this.ring.pendingResponses();
    for (let i = 0; i < count; i++) {
      decodeResponse(this.ring.view, this.ring.responseOffset(0), response);
      this.ring.consume(1);
      const { id, operation, status } = response;
      this.answers.push({ id, operation, status });
    }
  }
}

function create(guestCount: number) {
  const random = new SeededRandom(runSeed());
  const own = newRing();
  const pages = allocateMemory((GUEST_PAGE + guestCount) * PAGE_SIZE);
  const region = (first: number, count: number) => ({
    address: pages.address + first * PAGE_SIZE,
    grefs: Uint32Array.from({ length: count }, (_, index) => first + index),
  });
  const pool = new PagePool(region(0, POOL_PAGES));
  const zeroPool = new PagePool(region(POOL_PAGES, 16));
  const eventChannel = { port: 0, fd: -1, moduleUrl: '', detail: {} };
  const config = { pageCount: 1, abi: ABI, handle: 51712, eventChannel, maxSegments: 11 };
  const ring = new RingRequests({ ...config, address: own.memory.address }, DISK, {
    pool,
    zeroPool,
    indirectPool: undefined,
  });
  const counters = new Counters();
  const engine = new Engine(
    { disk: DISK, ranges: createSharedRanges(1, 64), laneIndex: 0, spillLimitBytes: 1 << 20 },
    {
      ring,
      pool,
      zeroPool,
      counters,
      contexts: new LaneContexts([createZeroMap(SIZE)]),
    },
  );
  const place = { ringAddress: own.memory.address, ringPageCount: 1, abi: ABI };
  const backend = new ModelBackend(place, pages.address, SIZE, random);
  const members = Array.from({ length: guestCount }, (_, index) => new Guest(index));
  for (const [index] of members.entries()) {
    new Uint8Array(pages.buffer, (GUEST_PAGE + index) * PAGE_SIZE, PAGE_SIZE).fill(index + 1);
  }
  const hostFd = createEventFd();
  const rings = members.map(({ address, fd }) => ({
    address,
    pageCount: 1,
    abi: ABI,
    guestFd: fd,
  }));
  const guests = new GuestRings({ hostFd, rings }, ring);
  engine.setGuests(guests);
  /** One turn of the lane, in which the backend answers up to `count` requests. */
  const turn = (count: number): void => {
    ring.publish();
    backend.step(count);
    engine.collect();
    engine.pump();
    guests.publish();
    for (const member of members) member.collect();
  };
  const close = (): void => {
    for (const { fd } of members) closeFd(fd);
    closeFd(hostFd);
  };
  return { random, engine, ring, backend, members, guests, turn, close, config, counters };
}

void t.test('requests go to the backend, and answers back to who asked', async (t) => {
  const { members, turn, guests, backend, ring, engine, close, counters } = create(2);
  const [one, other] = members as [Guest, Guest];
  t.equal(guests.finalCheck(), false, 'nothing is asked yet');
  one.write(7, 8);
  other.write(7, 16);
  other.flush(30);
  t.equal(guests.finalCheck(), true, 'asked before the lane sleeps');
  engine.pump();
  t.equal(ring.inFlight, 3);
  t.equal(ring.relayedCount, 3);
  t.equal(ring.requestCount, 0, 'none of its own');
  turn(3);
  t.strictSame(one.answers, [{ id: 7, operation: BlkifOp.BLKIF_OP_WRITE, status: 0 }]);
  t.strictSame(
    [...other.answers].sort((a, b) => a.id - b.id),
    [
      { id: 7, operation: BlkifOp.BLKIF_OP_WRITE, status: 0 },
      { id: 30, operation: BlkifOp.BLKIF_OP_FLUSH_DISKCACHE, status: 0 },
    ],
  );
  t.ok(drainEventFd(one.fd), 'and it is woken');
  t.strictSame([backend.disk[8 * 512], backend.disk[16 * 512]], [1, 2]);
  t.equal(backend.flushes, 1);
  backend.errorRate = 1;
  one.write(8, 8);
  engine.pump();
  turn(1);
  t.equal(one.answers.at(-1)?.status, -1, 'a failure is passed on');
  t.equal(counters.get(Counter.FAILED_WRITES), 0, 'and counted by who asked alone');
  t.equal(ring.inFlight, 0);
  close();
});

void t.test('neither a busy owner nor another guest is waited for without end', async (t) => {
  const { engine, members, turn, random, ring, close } = create(2);
  let own = 0;
  const ask = (): void => {
    const operation = engine.take();
    if (operation === undefined) return;
    operation.command = NbdCmd.READ;
    operation.offset = random.below(200) * 4096;
    operation.lengthBytes = 4096;
    operation.requester = {
      replyReady: (done) => {
        own += 1;
        engine.release(done);
      },
      payloadWanted: () => undefined,
      payloadRefused: () => undefined,
    };
    engine.start(operation);
  };
  for (let round = 0; round < 2000; round++) {
    // All three want more than the ring can hold.
    for (let i = 0; i < 40; i++) ask();
    for (const member of members) {
      while (member.ring.freeSlots() > 0) member.write(round % 1000, random.below(200) * 8);
    }
    turn(1 + random.below(6));
  }
  const counts = [own, ...members.map(({ answers }) => answers.length)];
  const sum = counts.reduce((total, count) => total + count, 0);
  t.ok(sum > 4000, `${sum} answers`);
  for (const count of counts) t.ok(count > sum / 8, `${count} of ${sum}`);
  t.equal(ring.fault, undefined);
  close();
});

void t.test('what was relayed on a ring that is lost is not asked again', async (t) => {
  const { engine, members, ring, config, turn, close } = create(1);
  members[0]?.write(1, 8);
  engine.pump();
  t.equal(ring.inFlight, 1);
  ring.suspend();
  engine.setGuests(undefined);
  members[0]?.write(2, 8);
  const fresh = newRing();
  ring.resume({ ...config, address: fresh.memory.address }, DISK);
  t.equal(ring.inFlight, 0, 'its lane asks again, on a ring of its own');
  engine.pump();
  turn(1);
  t.equal(members[0]?.answers.length, 0);
  close();
});

void t.test('a lane on hold passes on what others have asked already', async (t) => {
  const { engine, members, ring, turn, close } = create(1);
  ring.hold();
  t.equal(ring.hasRoom, false);
  members[0]?.write(1, 8);
  engine.pump();
  turn(1);
  t.equal(members[0]?.answers.length, 1);
  close();
});
