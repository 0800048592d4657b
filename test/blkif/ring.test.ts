/**
 * Goal: the ring never loses, repeats or tears an entry, rings the doorbell exactly when the other
 * end may sleep, and sees through a lying other end.
 * Method: both ends against a model queue under random operations, with indices that start near
 * 2^32; every interleaving of one publication with one final check, step by atomic step; golden
 * header bytes; indices bent by hand.
 */

import fc from 'fast-check';
import t from 'tap';
import {
  BackRing,
  BlkifAbi,
  createRingArea,
  FrontRing,
  passesEvent,
  RING_BROKEN,
  type RingArea,
  ringAdvance,
  ringDistance,
} from '../../src/blkif/index.ts';

const STARTS = [0, 1, 0x7fff_fff0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffe0, 0xffff_ffff];

function freshArea(ringPageCount = 1, abi: BlkifAbi = BlkifAbi.X86_64): RingArea {
  const buffer = new ArrayBuffer(ringPageCount * 4096 + 64);
  return createRingArea({ buffer, offsetBytes: 64, ringPageCount, abi });
}

interface Pair {
  readonly area: RingArea;
  readonly front: FrontRing;
  readonly back: BackRing;
}

function freshPair(startIndex: number, ringPageCount = 1): Pair {
  const area = freshArea(ringPageCount);
  const front = FrontRing.initialise(area, startIndex);
  return { area, front, back: BackRing.attach(area) };
}

/** A ring beside plain queues that say what it must hold. */
class RingModel {
  readonly #pair: Pair;
  #nextValue = 1;
  #filled = 0;
  readonly #visibleRequests: number[] = [];
  readonly #filledRequests: number[] = [];
  readonly #taken: number[] = [];
  readonly #filledResponses: number[] = [];
  readonly #visibleResponses: number[] = [];
  /** Whether each end was told that it may sleep, and was not rung since. */
  #frontSleeps = true;
  #backSleeps = true;

  constructor(pair: Pair) {
    this.#pair = pair;
  }

  step(kind: string, count: number): void {
    const { front, back, area } = this.#pair;
    const view = area.view;
    switch (kind) {
      case 'fill':
        for (let left = Math.min(count, front.freeSlots()); left > 0; left--) {
          const value = this.#nextValue++;
          const at = front.reserveSlot();
          view.setUint32(at, value);
          view.setUint32(at + area.slotBytes - 4, value);
          this.#filledRequests.push(value);
          this.#filled++;
        }
        break;
      case 'publish': {
        const had = this.#filledRequests.length;
        this.#visibleRequests.push(...this.#filledRequests.splice(0));
        const mustNotify = front.publish();
        expect(mustNotify, had > 0 && this.#backSleeps, 'front notify');
        this.#backSleeps = this.#backSleeps && had === 0;
        break;
      }
      case 'take': {
        expect(back.pendingRequests(), this.#visibleRequests.length, 'pending requests');
        const taking = Math.min(count, this.#visibleRequests.length);
        for (let position = 0; position < taking; position++) {
          const at = back.requestOffset(position);
          const value = this.#visibleRequests.shift() ?? 0;
          expect(view.getUint32(at), value, 'request head');
          expect(view.getUint32(at + area.slotBytes - 4), value, 'request tail');
          this.#taken.push(value);
        }
        back.consume(taking);
        break;
      }
      case 'answer':
        for (let left = Math.min(count, this.#taken.length); left > 0; left--) {
          // Out of order: the newest first.
          const value = this.#taken.pop() ?? 0;
          view.setUint32(back.reserveSlot(), value);
          this.#filledResponses.push(value);
        }
        break;
      case 'reply': {
        const had = this.#filledResponses.length;
        this.#visibleResponses.push(...this.#filledResponses.splice(0));
        expect(back.publish(), had > 0 && this.#frontSleeps, 'back notify');
        this.#frontSleeps = this.#frontSleeps && had === 0;
        break;
      }
      case 'read': {
        expect(front.pendingResponses(), this.#visibleResponses.length, 'pending responses');
        const reading = Math.min(count, this.#visibleResponses.length);
        for (let position = 0; position < reading; position++) {
          const value = this.#visibleResponses.shift() ?? 0;
          expect(view.getUint32(front.responseOffset(position)), value, 'response');
        }
        front.consume(reading);
        this.#filled -= reading;
        break;
      }
      case 'sleepF': {
        const isWork = front.finalCheck();
        expect(isWork, this.#visibleResponses.length > 0, 'front final check');
        this.#frontSleeps = this.#frontSleeps || !isWork;
        break;
      }
      default: {
        const isWork = back.finalCheck();
        expect(isWork, this.#visibleRequests.length > 0, 'back final check');
        this.#backSleeps = this.#backSleeps || !isWork;
      }
    }
    expect(front.unanswered(), this.#filled, 'unanswered');
    expect(front.freeSlots(), front.slotCount - this.#filled, 'free slots');
    expect(back.unanswered(), this.#taken.length, 'back end unanswered');
    expect(back.unpublished(), this.#filledResponses.length, 'back end unpublished');
  }
}

function expect(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) {
    throw new Error(`${what}: ${String(actual)} instead of ${String(expected)}`);
  }
}

void t.test('index arithmetic wraps', (t) => {
  t.equal(ringDistance(0xffff_fffe, 3), 5);
  t.equal(ringDistance(3, 0xffff_fffe), 0xffff_fffb);
  t.equal(ringAdvance(0xffff_ffff, 1), 0);
  // ring.h: notify when the event lies in (old, new].
  t.equal(passesEvent(10, 12, 10), false, 'already passed before');
  t.equal(passesEvent(10, 12, 11), true);
  t.equal(passesEvent(10, 12, 12), true);
  t.equal(passesEvent(10, 12, 13), false, 'not reached');
  t.equal(passesEvent(0xffff_ffff, 1, 0), true);
  t.equal(passesEvent(0xffff_ffff, 1, 2), false);
  t.equal(passesEvent(0xffff_ffff, 1, 0xffff_ffff), false);
  t.end();
});

void t.test('initialise writes the start values and zeroes the rest of the header', (t) => {
  const area = freshArea();
  new Uint8Array(area.view.buffer).fill(0xff);
  FrontRing.initialise(area);
  const header = Buffer.from(area.view.buffer, 64, 64).toString('hex');
  t.equal(header, `00000000010000000000000001000000${'0'.repeat(96)}`);
  t.equal(area.view.getUint32(64, true), 0xffffffff, 'slots are left alone');
  FrontRing.initialise(area, 0xffff_ffff);
  t.equal(
    Buffer.from(area.view.buffer, 64, 16).toString('hex'),
    'ffffffff00000000ffffffff00000000',
  );
  t.end();
});

void t.test('a ring area refuses what it cannot hold', (t) => {
  const buffer = new ArrayBuffer(4096);
  const abi = BlkifAbi.X86_64;
  t.throws(() => createRingArea({ buffer, offsetBytes: 0, ringPageCount: 0, abi }), RangeError);
  t.throws(() => createRingArea({ buffer, offsetBytes: 0, ringPageCount: 2, abi }), RangeError);
  t.throws(() => createRingArea({ buffer, offsetBytes: 2, ringPageCount: 1, abi }), RangeError);
  t.throws(() => createRingArea({ buffer, offsetBytes: 0, ringPageCount: 1.5, abi }), RangeError);
  t.end();
});

void t.test('slots lie one after the other, also across a page edge', (t) => {
  for (const [abi, slotBytes] of [
    [BlkifAbi.X86_64, 112],
    [BlkifAbi.ARM, 112],
    [BlkifAbi.X86_32, 108],
  ] as const) {
    const area = freshArea(2, abi);
    const front = FrontRing.initialise(area, 0xffff_fff0);
    t.equal(front.slotCount, 64);
    const offsets = Array.from({ length: 64 }, () => front.reserveSlot());
    const expected = Array.from({ length: 64 }, (_, at) => 64 + ((0x30 + at) % 64) * slotBytes);
    t.same(offsets, expected, abi);
    t.equal(front.freeSlots(), 0);
    t.throws(() => front.reserveSlot(), /full ring/);
  }
  t.end();
});

void t.test('attach goes on where the header stands, but not with requests in flight', (t) => {
  const area = freshArea();
  FrontRing.initialise(area, 7);
  const front = FrontRing.attach(area);
  t.equal(front.freeSlots(), 32);
  front.reserveSlot();
  t.equal(front.publish(), true);
  t.equal(BackRing.attach(area).pendingRequests(), 1);
  t.throws(() => FrontRing.attach(area), /req_prod is 8 and rsp_prod is 7/);
  t.end();
});

void t.test('a back end that attaches late serves what was not answered', (t) => {
  const { area, front, back } = freshPair(0xffff_fffe);
  for (let count = 0; count < 5; count++) {
    front.reserveSlot();
  }
  front.publish();
  back.consume(5);
  back.reserveSlot();
  back.reserveSlot();
  back.publish();
  t.equal(BackRing.attach(area).pendingRequests(), 3);
  t.end();
});

void t.test('what is not published is not seen; nothing to publish rings nobody', (t) => {
  const { front, back } = freshPair(0xffff_ffff);
  t.equal(front.publish(), false);
  front.reserveSlot();
  t.equal(front.unpublished(), 1);
  t.equal(back.pendingRequests(), 0);
  t.equal(front.publish(), true, 'the first request rings');
  t.equal(front.unpublished(), 0);
  t.equal(front.publish(), false);
  t.equal(back.pendingRequests(), 1);
  front.reserveSlot();
  t.equal(front.publish(), false, 'the back end did not ask again');
  t.equal(back.pendingRequests(), 2);
  back.consume(2);
  t.equal(back.finalCheck(), false);
  front.reserveSlot();
  t.equal(front.publish(), true, 'it went to sleep in between');
  t.end();
});

void t.test('both ends against a model queue, from any start index', (t) => {
  // Each operation is a kind and a count; both ends do as much of it as is possible.
  const operation = fc.record({
    kind: fc.constantFrom('fill', 'publish', 'take', 'answer', 'reply', 'read', 'sleepF', 'sleepB'),
    count: fc.integer({ min: 1, max: 40 }),
  });
  const startIndex = fc.oneof(fc.constantFrom(...STARTS), fc.integer({ min: 0, max: 0xffff_ffff }));
  fc.assert(
    fc.property(
      startIndex,
      fc.integer({ min: 0, max: 2 }),
      fc.array(operation, { maxLength: 120 }),
      (start, order, operations) => {
        const model = new RingModel(freshPair(start, 2 ** order));
        for (const { kind, count } of operations) {
          model.step(kind, count);
        }
        return true;
      },
    ),
    { numRuns: 1000 },
  );
  t.pass('no difference');
  t.end();
});

/**
 * Runs `action` and, before its `step`-th atomic access (from 0), `intruder`: what a thread of the
 * other end could do at exactly that moment. Returns whether that step was reached; if not, the
 * intruder comes after the action.
 */
function interleave(step: number, action: () => void, intruder: () => void): boolean {
  const { load, store } = Atomics;
  let reached = 0;
  let isInside = false;
  const intrude = (): void => {
    if (!isInside && reached++ === step) {
      isInside = true;
      intruder();
      isInside = false;
    }
  };
  const hooked = {
    load: (array: Uint32Array, index: number): number => {
      intrude();
      return load(array, index);
    },
    store: (array: Uint32Array, index: number, value: number): number => {
      intrude();
      return store(array, index, value);
    },
  };
  Object.assign(Atomics, hooked);
  try {
    action();
  } finally {
    Object.assign(Atomics, { load, store });
  }
  if (reached <= step) {
    intruder();
    return false;
  }
  return true;
}

/**
 * A pair in the middle of its work: both ends were rung once and did not ask again, so that the
 * next publication rings only if the other end asks in time. Two requests are filled, one of them
 * published and consumed by the back end.
 */
function busyPair(startIndex: number): Pair {
  const pair = freshPair(startIndex);
  const { front, back } = pair;
  front.reserveSlot();
  front.publish();
  back.consume(1);
  back.reserveSlot();
  back.publish();
  front.consume(1);
  front.reserveSlot();
  expect(front.publish(), false, 'the back end is awake');
  back.consume(1);
  return pair;
}

/** What one end does when it makes up its mind to sleep; true when it stays awake. */
type Sleep = (pair: Pair) => boolean;
/** What the other end does to give it work; true when it rings. */
type Wake = (pair: Pair) => boolean;

const SCENES: readonly { name: string; sleep: Sleep; wake: Wake }[] = [
  {
    name: 'the front end sleeps while a response is published',
    sleep: ({ front }) => front.finalCheck(),
    wake: ({ back }) => {
      back.reserveSlot();
      return back.publish();
    },
  },
  {
    name: 'the back end sleeps while a request is published',
    sleep: ({ back }) => back.finalCheck(),
    wake: ({ front }) => {
      front.reserveSlot();
      return front.publish();
    },
  },
];

for (const { name, sleep, wake } of SCENES) {
  void t.test(`no wake-up is lost at any step: ${name}`, (t) => {
    for (const start of STARTS) {
      for (const isSleeperCut of [true, false]) {
        let steps = 0;
        for (let isReached = true; isReached; steps++) {
          const pair = busyPair(start);
          let isWork = false;
          let isRung = false;
          const toSleep = (): void => {
            isWork = sleep(pair);
          };
          const toWake = (): void => {
            isRung = wake(pair);
          };
          const [action, intruder] = isSleeperCut ? [toSleep, toWake] : [toWake, toSleep];
          isReached = interleave(steps, action, intruder);
          t.ok(
            isWork || isRung,
            `start ${start}, ${isSleeperCut ? 'sleeper' : 'waker'} cut at step ${steps}`,
          );
        }
        t.ok(steps > 2, 'there were steps to cut at');
      }
    }
    t.end();
  });
}

void t.test('a back end whose producer cannot be true is seen', (t) => {
  for (const start of STARTS) {
    const lie = (by: number): { front: FrontRing; area: RingArea } => {
      const { area, front, back } = freshPair(start);
      for (let count = 0; count < 4; count++) {
        front.reserveSlot();
      }
      front.publish();
      back.consume(4);
      back.reserveSlot();
      back.publish();
      front.consume(1);
      // Three requests are in flight and rsp_prod is start + 1.
      Atomics.store(area.words, 2, (start + 1 + by) >>> 0);
      return { front, area };
    };
    t.equal(lie(0).front.pendingResponses(), 0);
    t.equal(lie(3).front.pendingResponses(), 3);
    for (const by of [4, 5, 31, 32, 33, 0x7fff_ffff, 0x8000_0000, -1, -2]) {
      const { front } = lie(by);
      t.equal(front.pendingResponses(), RING_BROKEN, `start ${start}, ahead by ${by}`);
      t.equal(front.finalCheck(), true, 'and the front end does not go to sleep over it');
    }
  }
  t.end();
});

void t.test('the front end does not believe what the back end wrote into our own words', (t) => {
  const { area, front, back } = freshPair(5);
  front.reserveSlot();
  front.publish();
  // Shared req_prod and rsp_event are ours; the other end scribbles over them.
  Atomics.store(area.words, 0, 0x1234_5678);
  Atomics.store(area.words, 3, 0x1234_5678);
  t.equal(front.unanswered(), 1);
  t.equal(front.freeSlots(), 31);
  t.equal(front.pendingResponses(), 0);
  back.consume(1);
  t.equal(front.finalCheck(), false);
  t.equal(Atomics.load(area.words, 3), 6, 'rsp_event is written anew');
  front.reserveSlot();
  front.publish();
  t.equal(Atomics.load(area.words, 0), 7, 'req_prod too');
  t.end();
});

void t.test('a front end whose producer cannot be true is seen', (t) => {
  for (const start of STARTS) {
    const bent = (requests: number): number => {
      const { area, front, back } = freshPair(start);
      front.reserveSlot();
      front.reserveSlot();
      front.publish();
      back.consume(2);
      back.reserveSlot();
      back.publish();
      // One answered, one not; the next request is start + 2.
      Atomics.store(area.words, 0, (start + requests) >>> 0);
      return back.pendingRequests();
    };
    t.equal(bent(2), 0);
    t.equal(bent(3), 1);
    t.equal(bent(33), 31, 'a ring ahead of the last response');
    t.equal(bent(34), RING_BROKEN);
    t.equal(bent(1), RING_BROKEN, 'ran back behind a consumed request');
    t.equal(bent(0), RING_BROKEN);
    t.equal(bent(0x8000_0000), RING_BROKEN);
  }
  t.end();
});

void t.test('programming errors are refused', (t) => {
  const { front, back } = freshPair(0xffff_ffff);
  t.throws(() => front.consume(1), /than requests are in flight/);
  t.throws(() => back.reserveSlot(), /without an unanswered request/);
  t.throws(() => back.consume(33), /than the ring has slots/);
  front.reserveSlot();
  t.throws(() => front.consume(1), /than requests are in flight/, 'not even published');
  t.end();
});
