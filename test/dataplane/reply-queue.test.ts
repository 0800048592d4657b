// Goal: a client that takes nothing of a large read is read nothing more for: the piece that was
// ready is parked, its pages are free, and the read goes on when that has left, or never.
import t from 'tap';
import { Iovec } from '../../src/dataplane/iovec.ts';
import type { LaneCore } from '../../src/dataplane/lane-core.ts';
import { Operation } from '../../src/dataplane/operation.ts';
import { HEADER_SLOT_BYTES } from '../../src/dataplane/reply-header.ts';
import { ReplyQueue } from '../../src/dataplane/reply-queue.ts';
import { allocateMemory } from '../../src/sys/index.ts';

function setUp() {
  const calls: string[] = [];
  const headers = allocateMemory(4 * HEADER_SLOT_BYTES);
  const parking = allocateMemory(4096);
  const core = {
    headers: { ...headers, view: new DataView(headers.buffer) },
    iovec: new Iovec(),
    pool: undefined,
    engine: {
      allocateParking: () => parking.address,
      freeParking: () => calls.push('freed'),
      giveBack: ({ index }: Operation) => calls.push(`gave back ${index}`),
      readOn: ({ index }: Operation) => calls.push(`read on ${index}`),
    },
    release: ({ index }: Operation) => calls.push(`released ${index}`),
  } as unknown as LaneCore;
  const queue = new ReplyQueue();
  /** A reply of a header alone, which is all that matters here. */
  const reply = (index: number, isMore: boolean): void => {
    const operation = new Operation(index);
    operation.headerBytes = 20;
    operation.isMore = isMore;
    queue.push(operation);
  };
  return { calls, core, queue, reply };
}

void t.test('a piece that has left is followed by the next', (t) => {
  const { calls, core, queue, reply } = setUp();
  reply(0, true);
  reply(1, false);
  queue.gather(core);
  queue.sent(20, core);
  t.strictSame(calls, ['read on 0']);
  t.equal(queue.completedCount, 0, 'it is not answered yet');
  queue.sent(20, core);
  t.strictSame(calls, ['read on 0', 'released 1']);
  t.equal(queue.completedCount, 1);
  t.end();
});

void t.test('one that is parked is not', (t) => {
  const { calls, core, queue, reply } = setUp();
  reply(0, true);
  reply(1, false);
  t.ok(queue.park(core));
  t.strictSame(calls, ['gave back 0', 'released 1']);
  t.equal(queue.completedCount, 1);
  queue.sent(39, core);
  t.strictSame(calls.splice(0), ['gave back 0', 'released 1']);
  queue.sent(1, core);
  t.strictSame(calls.splice(0), ['freed', 'read on 0'], 'the client has taken it');
  t.end();
});

void t.test('parked again: it still waits', (t) => {
  const { calls, core, queue, reply } = setUp();
  reply(0, true);
  queue.park(core);
  reply(1, true);
  queue.sent(5, core);
  queue.park(core);
  t.strictSame(calls.splice(0), ['gave back 0', 'freed', 'gave back 1']);
  queue.sent(35, core);
  t.strictSame(calls, ['freed', 'read on 0', 'read on 1']);
  t.end();
});

void t.test('a client that leaves releases it', (t) => {
  const { calls, core, queue, reply } = setUp();
  reply(0, true);
  queue.park(core);
  queue.drop(core);
  t.strictSame(calls, ['gave back 0', 'freed', 'released 0']);
  t.end();
});
