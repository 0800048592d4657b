/**
 * Goal: simulated event channels behave like /dev/xen/evtchn and lose no wake-up. Method: each rule
 * by hand on two ends in one thread, then two threads that play ping-pong and a counter race, where
 * one lost event means that a side sleeps for ever (and the test times out).
 */

import { Worker } from 'node:worker_threads';
import t from 'tap';
import type { EventChannel } from '../../src/host/index.ts';
import { openEventChannel, PENDING } from '../../src/sim/event-channel.ts';
import { EventChannelTable } from '../../src/sim/event-channel-table.ts';
import { EPOLLIN, Epoll, viewMemory } from '../../src/sys/index.ts';
import type { PongReport, PongSetup } from './event-pong.ts';

class Ends {
  readonly table = new EventChannelTable();
  readonly frontHandle = this.table.bindUnbound(1, 0);
  readonly front: EventChannel = openEventChannel(this.frontHandle);
  readonly backHandle = this.table.bindInterdomain(0, 1, this.frontHandle.port);
  readonly back: EventChannel;
  readonly #epoll = new Epoll(4);

  constructor() {
    if (this.backHandle === undefined) throw new Error('not bound');
    this.back = openEventChannel(this.backHandle);
    this.#epoll.add(this.front.fd, EPOLLIN, 1);
    this.#epoll.add(this.back.fd, EPOLLIN, 2);
  }

  /** Which ends are readable: f, b, fb or nothing. */
  ready(): string {
    const count = this.#epoll.wait(0);
    let ends = '';
    for (let index = 0; index < count; index++)
      ends += this.#epoll.tokenAt(index) === 1 ? 'f' : 'b';
    return ends === 'bf' ? 'fb' : ends;
  }

  close(): void {
    this.#epoll.close();
    this.table.close();
  }
}

void t.test('a bound end starts with one event', async (t) => {
  const ends = new Ends();
  t.equal(ends.ready(), 'b', 'something may have been sent before the bind');
  t.equal(ends.back.consume(), true);
  ends.back.unmask();
  t.equal(ends.ready(), '');
  t.equal(ends.back.consume(), false);
  ends.close();
});

void t.test('consume masks, unmask delivers what came meanwhile', async (t) => {
  const ends = new Ends();
  ends.back.consume();
  ends.back.unmask();
  ends.front.notify();
  ends.front.notify();
  t.equal(ends.ready(), 'b');
  t.equal(ends.back.consume(), true);
  t.equal(ends.ready(), '');
  t.equal(ends.back.consume(), false, 'two events are one');
  ends.front.notify();
  t.equal(ends.ready(), '', 'masked');
  t.equal(ends.back.consume(), false, 'what is pending under the mask belongs to unmask');
  ends.back.unmask();
  t.equal(ends.ready(), 'b');
  t.equal(ends.back.consume(), true);
  ends.back.unmask();
  ends.back.unmask();
  t.equal(ends.ready(), '');
  ends.back.notify();
  t.equal(ends.ready(), 'f', 'the other direction is apart');
  ends.close();
});

void t.test('an end that looks anyway may drop what is pending', async (t) => {
  const ends = new Ends();
  const front = openEventChannel(ends.frontHandle);
  ends.back.notify();
  t.equal(front.consume(), true);
  ends.back.notify();
  front.discardPending();
  front.unmask();
  t.equal(ends.ready(), 'b', 'only the back end still has its first event');
  ends.back.notify();
  front.discardPending();
  t.equal(ends.ready(), 'fb', 'not masked: nothing is dropped');
  ends.close();
});

void t.test('who may bind, and once only', async (t) => {
  const table = new EventChannelTable();
  const handle = table.bindUnbound(1, 0);
  t.equal(table.bindInterdomain(0, 1, handle.port + 1), undefined);
  t.equal(table.bindInterdomain(0, 2, handle.port), undefined);
  t.equal(table.bindInterdomain(5, 1, handle.port), undefined);
  const back = table.bindInterdomain(0, 1, handle.port);
  t.ok(back);
  t.equal(table.bindInterdomain(0, 1, handle.port), undefined, 'is bound');
  if (back !== undefined) table.unbind(back);
  const again = table.bindInterdomain(0, 1, handle.port);
  t.ok(again, 'a port whose other end was closed is unbound again');
  t.equal(table.openCount, 1);
  table.unbind(handle);
  t.equal(table.openCount, 1, 'descriptors stay until both ends are closed');
  t.equal(table.bindInterdomain(0, 1, handle.port), undefined);
  if (again !== undefined) table.unbind(again);
  t.equal(table.openCount, 0);
  t.throws(() => table.unbind(handle), { code: 'FAILED' });
  table.close();
});

void t.test('an event to a closed or unbound end goes nowhere', async (t) => {
  const table = new EventChannelTable();
  const handle = table.bindUnbound(1, 0);
  openEventChannel(handle).notify();
  const back = table.bindInterdomain(0, 1, handle.port);
  if (back === undefined) throw new Error('not bound');
  table.unbind(handle);
  openEventChannel(back).notify();
  t.pass('nothing was written to a descriptor that is not ours');
  table.unbind(back);
  table.close();
});

type AtomicName = 'and' | 'or' | 'load' | 'store' | 'exchange' | 'compareExchange';

/**
 * Runs `action`, and `intruder` in the middle of it: before or after its `point`-th atomic
 * operation. Returns whether there was such a point.
 */
function interleave(action: () => void, point: number, intruder: () => void): boolean {
  const names: AtomicName[] = ['and', 'or', 'load', 'store', 'exchange', 'compareExchange'];
  const originals = names.map((name) => [name, Atomics[name]] as const);
  const table = Atomics as unknown as Record<AtomicName, (...args: unknown[]) => unknown>;
  let position = 0;
  let isInside = false;
  const maybeIntrude = (): void => {
    if (isInside) return;
    if (position === point) {
      isInside = true;
      intruder();
      isInside = false;
    }
    position += 1;
  };
  for (const [name, original] of originals) {
    table[name] = (...args) => {
      maybeIntrude();
      const result = (original as (...args: unknown[]) => unknown)(...args);
      maybeIntrude();
      return result;
    };
  }
  try {
    action();
  } finally {
    for (const [name, original] of originals) {
      table[name] = original as (...args: unknown[]) => unknown;
    }
  }
  return position > point;
}

void t.test('no step of one side between two steps of the other loses an event', async (t) => {
  type Step = 'notify' | 'consume' | 'unmask' | 'discardPending';
  const owner: readonly (readonly Step[])[] = [
    ['consume'],
    ['unmask'],
    ['discardPending'],
    ['consume', 'unmask'],
    ['discardPending', 'unmask'],
  ];
  const beginnings: readonly (readonly Step[])[] = [
    [],
    ['notify'],
    ['notify', 'consume'],
    ['notify', 'consume', 'notify'],
  ];
  let checked = 0;
  for (const beginning of beginnings) {
    for (const steps of owner) {
      for (const isOwnerOutside of [true, false]) {
        for (let point = 0; point < 12; point++) {
          const table = new EventChannelTable();
          const handle = table.bindUnbound(1, 0);
          const back = table.bindInterdomain(0, 1, handle.port);
          if (back === undefined) throw new Error('not bound');
          const front = openEventChannel(handle);
          const sender = openEventChannel(back);
          const epoll = new Epoll(1);
          epoll.add(front.fd, EPOLLIN, 1);
          const take = (step: Step): void => {
            if (step === 'notify') sender.notify();
            else front[step]();
          };
          for (const step of beginning) take(step);
          const own = (): void => steps.forEach(take);
          const send = (): void => sender.notify();
          const wasThere = isOwnerOutside
            ? interleave(own, point, send)
            : interleave(send, point, own);
          if (wasThere) {
            checked += 1;
            const stateWord = new Int32Array(viewMemory(handle.detail['stateAddress'] ?? 0, 4));
            const isDeliverable = Atomics.load(stateWord, 0) === PENDING;
            const isReadable = epoll.wait(0) > 0;
            const what = `${beginning.join()} | ${steps.join()} | ${isOwnerOutside} at ${point}`;
            if (isDeliverable && !isReadable) t.fail(`nobody will hear the event: ${what}`);
          }
          epoll.close();
          table.unbind(back);
          table.unbind(handle);
          table.close();
        }
      }
    }
  }
  t.ok(checked > 50, `${checked} interleavings`);
});

void t.test('two threads lose no event', async (t) => {
  const table = new EventChannelTable();
  const handle = table.bindUnbound(1, 0);
  const back = table.bindInterdomain(0, 1, handle.port);
  if (back === undefined) throw new Error('not bound');
  const shared = new SharedArrayBuffer(8);
  const rounds = 60_000;
  const setup: PongSetup = { handle: back, rounds, shared };
  const worker = new Worker(new URL('./event-pong.js', import.meta.url), { workerData: setup });
  const exited = new Promise((resolve) => worker.once('exit', resolve));
  const report = new Promise<PongReport>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  // The worker plays the back end: it raises word 1 to what it saw in word 0. We are the front end:
  // we raise word 0 and sleep until word 1 has followed, so each lost event stops both.
  const words = new Int32Array(shared);
  const channel = openEventChannel(handle);
  const epoll = new Epoll(2);
  epoll.add(channel.fd, EPOLLIN, 1);
  let wakeUps = 0;
  for (let sent = 1; sent <= rounds; sent++) {
    Atomics.store(words, 0, sent);
    channel.notify();
    // In every third round we run ahead, so that events come while the other side is awake.
    if (sent % 3 !== 0 && sent < rounds) continue;
    while (Atomics.load(words, 1) < sent) {
      if (epoll.wait(20_000) === 0) throw new Error(`An event was lost in round ${sent}.`);
      wakeUps += 1;
      channel.consume();
      channel.unmask();
    }
  }
  t.equal((await report).lastSeen, rounds);
  t.ok(wakeUps <= 2 * rounds, `${wakeUps} wake-ups for ${rounds} events`);
  await exited;
  epoll.close();
  table.close();
});
