/**
 * Goal: the ring never loses, repeats or tears an entry.
 * Method: both ends against a model queue under random operations, with indices that start near
 * 2^32; golden header bytes; slots and edges one by one.
 */

import fc from 'fast-check';
import t from 'tap';
import {
  BackRing,
  BlkifAbi,
  createRingArea,
  FrontRing,
  passesEvent,
  ringAdvance,
  ringDistance,
} from '../../src/blkif/index.ts';
import { RingModel } from './support/ring-model.ts';
import { freshArea, freshPair, STARTS } from './support/ring-pair.ts';

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

void t.test('programming errors are refused', (t) => {
  const { front, back } = freshPair(0xffff_ffff);
  t.throws(() => front.consume(1), /than requests are in flight/);
  t.throws(() => back.reserveSlot(), /without an unanswered request/);
  t.throws(() => back.consume(33), /than the ring has slots/);
  front.reserveSlot();
  t.throws(() => front.consume(1), /than requests are in flight/, 'not even published');
  t.end();
});
