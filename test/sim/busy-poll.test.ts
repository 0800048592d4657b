// A back end that looks for requests: it is not woken for them, and asks for that before it sleeps.
import t, { type Test } from 'tap';
import { BusyPoll } from '../../src/sys/index.ts';
import { connectByHand, type HandFront } from './hand-front.ts';
import { read, Stepped } from './stepped-host.ts';

const XVDA = 51712;
const REQ_PROD = 0;
const REQ_EVENT = 1;
const LONGEST_US = 2000;

async function start(t: Test, busyPoll: BusyPoll) {
  const stepped = await Stepped.start({}, { busyPoll });
  const { store, front } = await stepped.settle(connectByHand(stepped.host, XVDA));
  const data = stepped.host.grantPages(0, 1, 'read-write');
  t.teardown(async () => {
    await stepped.settle(store.close());
    await stepped.close();
  });
  return { stepped, front, gref: data.grefs[0] ?? 0 };
}

/** Shows the requests to the back end, and does not ring. */
function pushSilently(front: HandFront): void {
  Atomics.store(front.words, REQ_PROD, front.requests);
}

void t.test('requests that come while it looks need no event', async (t) => {
  const { stepped, front, gref } = await start(t, new BusyPoll(LONGEST_US));
  read(front, 1, gref);
  front.push();
  stepped.rings.step();
  t.equal(front.take().length, 1);
  t.equal(front.words[REQ_EVENT], 1, 'it has not asked to be woken for the second');
  for (let id = 2; id < 40; id++) {
    read(front, id, gref);
    pushSilently(front);
    stepped.rings.step();
    t.same(front.take(), [{ id, operation: 0, status: 0 }]);
  }
  t.equal(front.words[REQ_EVENT], 1);
});

void t.test('before it sleeps it asks to be woken, and is', async (t) => {
  const { stepped, front, gref } = await start(t, new BusyPoll(LONGEST_US));
  read(front, 1, gref);
  front.push();
  stepped.rings.step();
  t.equal(front.take().length, 1);
  stepped.rings.step();
  t.equal(front.words[REQ_EVENT], 2, 'it has looked in vain');
  read(front, 2, gref);
  pushSilently(front);
  stepped.rings.step();
  t.same(front.take(), [], 'it sleeps');
  front.channel?.notify();
  stepped.rings.step();
  t.same(front.take(), [{ id: 2, operation: 0, status: 0 }]);
});

void t.test('a request that comes just before it sleeps is served', async (t) => {
  const busyPoll = new BusyPoll(LONGEST_US);
  const { stepped, front, gref } = await start(t, busyPoll);
  read(front, 1, gref);
  front.push();
  stepped.rings.step();
  front.take();
  // The last look before the request, and the wish to be woken after it.
  busyPoll.goesOn = () => {
    read(front, 2, gref);
    pushSilently(front);
    return false;
  };
  busyPoll.begin = () => true;
  stepped.rings.step();
  t.same(front.take(), [{ id: 2, operation: 0, status: 0 }]);
});

void t.test('a broken ring is looked at no more', async (t) => {
  const { stepped, front, gref } = await start(t, new BusyPoll(LONGEST_US));
  read(front, 1, gref);
  front.push();
  stepped.rings.step();
  front.take();
  Atomics.store(front.words, REQ_PROD, 1000);
  stepped.rings.step();
  stepped.rings.step();
  t.same(front.take(), []);
});
