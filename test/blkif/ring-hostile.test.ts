/**
 * Goal: each end sees through a lie in the indices of the other, and is not misled by it.
 * Method: indices in the shared header bent by hand.
 */

import t from 'tap';
import { type FrontRing, RING_BROKEN, type RingArea } from '../../src/blkif/index.ts';
import { freshPair, STARTS } from './support/ring-pair.ts';

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
