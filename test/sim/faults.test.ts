/**
 * Goal: each trouble that the simulated host can make is really made, can be asked for alone, and
 * ends cleanly. Method: one front end by hand; rings are served step by step in this thread with a
 * clock of the test's own, so that "late" is exact.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { XenStoreClient } from 'xenstore-client';
import {
  createSimulatedHost,
  NO_FAULTS,
  type RingLie,
  type SimulatedHost,
  type SimulatedHostOptions,
  SteppedRings,
} from '../../src/sim/index.ts';
import { bytesOf, connectByHand, type HandFront, type HandResponse } from './hand-front.ts';

const directory = mkdtempSync(join(tmpdir(), 'sim-faults-'));
t.teardown(() => rmSync(directory, { recursive: true }));

/** A host whose rings are served when told to, at a time of our own. */
class Stepped {
  readonly host: SimulatedHost;
  readonly rings: SteppedRings;
  readonly #clock: { nowMs: number };

  private constructor(host: SimulatedHost, rings: SteppedRings, clock: { nowMs: number }) {
    this.host = host;
    this.rings = rings;
    this.#clock = clock;
  }

  static async start(options: Partial<SimulatedHostOptions>): Promise<Stepped> {
    const clock = { nowMs: 1000 };
    const rings = new SteppedRings(() => clock.nowMs);
    const disks = [{ vbd: 'xvda', sizeBytes: 1 << 20 }];
    return new Stepped(await createSimulatedHost({ disks, ...options, rings }), rings, clock);
  }

  /** Lets time pass, and everything happen that is due. */
  pass(milliseconds: number): void {
    const clock = this.#clock;
    const endMs = clock.nowMs + milliseconds;
    while (clock.nowMs < endMs) {
      this.rings.step();
      const nextMs = Math.max(this.rings.nextDueMs, clock.nowMs + 0.01);
      clock.nowMs = Math.min(endMs, nextMs);
    }
    this.rings.step();
  }

  /** Waits for a promise while the rings are served. */
  async settle<Result>(promise: Promise<Result>): Promise<Result> {
    let isDone = false;
    const mark = (): void => {
      isDone = true;
    };
    promise.then(mark, mark);
    while (!isDone) {
      this.pass(0.1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return await promise;
  }

  async close(): Promise<void> {
    await this.settle(this.host.close());
  }
}

function read(front: HandFront, id: number, gref: number, sector = 0): void {
  front.putDirect(0, id, sector, [{ gref, first: 0, last: 7 }]);
}

function write(front: HandFront, id: number, gref: number, sector: number): void {
  front.putDirect(1, id, sector, [{ gref, first: 0, last: 7 }]);
}

void t.test('delay: requests are executed and answered late, in any order', async (t) => {
  const sim = await Stepped.start({ faults: { ...NO_FAULTS, seed: 3, delayMs: 10 } });
  const { front, store } = await connectByHand(sim.host, 51712);
  const pages = sim.host.grantPages(0, 16, 'read-write');
  for (let id = 0; id < 16; id++) read(front, id, pages.grefs[id] ?? 0);
  front.push();
  sim.pass(0);
  t.same(front.take(), [], 'nothing at once');
  t.equal(sim.host.control.leaks().mappings, 17, 'the pages are mapped meanwhile');
  const ids: number[] = [];
  for (let ms = 0; ms < 20; ms++) {
    sim.pass(1);
    ids.push(...front.take().map(({ id }) => id));
  }
  t.equal(ids.length, 16);
  t.same(
    [...ids].sort((a, b) => a - b),
    Array.from({ length: 16 }, (_, id) => id),
  );
  t.notSame(
    ids,
    [...ids].sort((a, b) => a - b),
  );
  t.equal(sim.host.control.leaks().mappings, 1);
  await store.close();
  await sim.close();
});

void t.test('error: about that part of the requests fails', async (t) => {
  const sim = await Stepped.start({ faults: { ...NO_FAULTS, errorRate: 0.25 } });
  const { front, store } = await connectByHand(sim.host, 51712);
  const page = sim.host.grantPages(0, 1, 'read-write').grefs[0] ?? 0;
  let failed = 0;
  for (let id = 0; id < 400; id++) {
    read(front, id, page);
    front.push();
    sim.pass(0);
    const [response] = front.take();
    if (response?.status === -1) failed += 1;
    else t.equal(response?.status, 0);
  }
  t.ok(failed > 60 && failed < 140, `${failed} of 400`);
  await store.close();
  await sim.close();
});

void t.test('a killed back end executes late what it was given, and never answers', async (t) => {
  const file = join(directory, 'late.img');
  writeFileSync(file, new Uint8Array(1 << 20));
  const sim = await Stepped.start({
    disks: [{ vbd: 'xvda', file }],
    faults: { ...NO_FAULTS, delayMs: 50 },
  });
  const { front, store, backend } = await connectByHand(sim.host, 51712);
  const page = sim.host.grantPages(0, 1, 'read-write');
  bytesOf(page).fill(0x77);
  write(front, 1, page.grefs[0] ?? 0, 8);
  front.push();
  sim.pass(0);
  const killed = sim.host.control.killBackend('xvda');
  await new Promise((resolve) => setTimeout(resolve, 5));
  t.equal(readFileSync(file)[4096], 0, 'not yet');
  // A front end that uses its page for something else now has its data on the disk.
  bytesOf(page).fill(0x99);
  t.equal(sim.host.control.leaks().mappings, 2, 'the page is still mapped');
  await sim.settle(killed);
  t.equal(readFileSync(file)[4096], 0x99);
  t.same(front.take(), [], 'and nobody is told');
  t.equal(sim.host.control.leaks().mappings, 0);
  t.equal(await store.read(`${backend}/state`), '4');
  await store.close();
  await sim.close();
});

void t.test('a closed front end is only let go when everything was executed', async (t) => {
  const sim = await Stepped.start({ faults: { ...NO_FAULTS, delayMs: 50 } });
  const { front, store, backend } = await connectByHand(sim.host, 51712);
  const page = sim.host.grantPages(0, 1, 'read-write').grefs[0] ?? 0;
  write(front, 1, page, 8);
  front.push();
  sim.pass(0);
  await store.write('device/vbd/51712/state', '6');
  await new Promise((resolve) => setTimeout(resolve, 10));
  t.equal(await store.read(`${backend}/state`), '4', 'the request is in flight');
  await sim.settle(store.waitFor(`${backend}/state`, (state) => state === '6'));
  t.same(front.take(), [{ id: 1, operation: 1, status: 0 }], 'it was answered first');
  await store.close();
  await sim.close();
});

void t.test('power: what was not flushed may be lost, what was flushed is not', async (t) => {
  let kept = 0;
  let lost = 0;
  for (let seed = 1; seed <= 4; seed++) {
    const file = join(directory, `power-${seed}.img`);
    writeFileSync(file, new Uint8Array(1 << 20));
    const sim = await Stepped.start({ disks: [{ vbd: 'xvda', file, isVolatile: true }] });
    const { front, store } = await connectByHand(sim.host, 51712);
    const page = sim.host.grantPages(0, 1, 'read-write');
    const put = (value: number, sector: number): void => {
      bytesOf(page).fill(value);
      write(front, value, page.grefs[0] ?? 0, sector);
      front.push();
      sim.pass(0);
      t.equal(front.take()[0]?.status, 0);
    };
    put(0x11, 0);
    front.put(3, 0, 99, 0);
    front.push();
    sim.pass(0);
    t.equal(front.take()[0]?.status, 0);
    put(0x22, 0);
    put(0x33, 0);
    for (let index = 0; index < 8; index++) put(0x44, 8 + index * 8);
    await sim.settle(sim.host.control.losePower('xvda', seed));
    const content = readFileSync(file);
    t.ok([0x11, 0x22, 0x33].includes(content[0] ?? 0), `sector 0 holds ${content[0]}`);
    for (let index = 0; index < 8; index++) {
      if (content[4096 + index * 4096] === 0x44) kept += 1;
      else lost += 1;
    }
    await store.close();
    await sim.close();
  }
  t.ok(kept > 4 && lost > 4, `${kept} kept, ${lost} lost`);
});

async function lies(
  lie: RingLie,
  requests: number,
  check: (sim: Stepped, front: HandFront, responses: HandResponse[]) => void,
): Promise<void> {
  const sim = await Stepped.start({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20, hostility: { rate: 1, lies: [lie] } }],
  });
  const { front, store } = await connectByHand(sim.host, 51712);
  const pages = sim.host.grantPages(0, requests, 'read-write');
  for (let id = 0; id < requests; id++) read(front, id, pages.grefs[id] ?? 0);
  front.push();
  sim.rings.step();
  const producer = Atomics.load(front.words, 2);
  const responses = producer <= requests ? front.take() : [];
  check(sim, front, responses);
  await store.close();
  await sim.close();
}

void t.test('lies on the ring, one kind at a time', async (t) => {
  await lies('wrong-id', 8, (_sim, front, responses) => {
    t.equal(responses.length, 8);
    const highs = Array.from({ length: 8 }, (_, slot) =>
      front.view.getUint32(64 + slot * 112 + 4, true),
    );
    t.ok(responses.every(({ id }, index) => id !== index || highs[index] !== 0));
  });
  await lies('repeated-id', 4, (_sim, _front, responses) => {
    t.same(
      responses.map(({ id }) => id),
      [0, 0, 1, 2],
    );
  });
  await lies('unknown-status', 4, (_sim, _front, responses) => {
    t.ok(responses.every(({ status }) => ![0, -1, -2].includes(status)));
  });
  await lies('wrong-operation', 4, (_sim, _front, responses) => {
    t.ok(responses.every(({ operation }) => operation === 1));
  });
  await lies('producer-ahead', 1, (_sim, front) => {
    t.ok(Atomics.load(front.words, 2) > 33, `rsp_prod is ${Atomics.load(front.words, 2)}`);
  });
  await lies('producer-back', 1, (_sim, front) => {
    t.ok((Atomics.load(front.words, 2) | 0) <= 0, `rsp_prod is ${Atomics.load(front.words, 2)}`);
  });
  await lies('event-storm', 1, (sim, front, responses) => {
    t.equal(responses.length, 1, 'the answer is true');
    let events = 0;
    for (let turn = 0; turn < 20; turn++) {
      sim.rings.step();
      if (front.channel?.consume() === true) events += 1;
      front.channel?.unmask();
    }
    t.ok(events >= 15, `${events} events with nothing behind them`);
  });
});

void t.test('a page is written after its request was answered', async (t) => {
  const sim = await Stepped.start({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20, hostility: { rate: 1, lies: ['late-write'] } }],
  });
  const { front, store } = await connectByHand(sim.host, 51712);
  const page = sim.host.grantPages(0, 1, 'read-write');
  read(front, 1, page.grefs[0] ?? 0);
  front.push();
  sim.rings.step();
  t.same(front.take(), [{ id: 1, operation: 0, status: 0 }]);
  t.equal(bytesOf(page)[100], 0);
  sim.pass(5);
  t.equal(bytesOf(page)[100], 0xee);
  t.equal(sim.host.control.leaks().mappings, 1, 'then it is unmapped');
  await store.close();
  await sim.close();
});

void t.test('keys can be lies from the start, or change under the reader', async (t) => {
  const host = await createSimulatedHost({
    disks: [
      {
        vbd: 'xvda',
        sizeBytes: 1 << 20,
        keyOverrides: { sectors: '18446744073709551615', 'max-ring-page-order': 'many' },
      },
    ],
  });
  const { store, backend } = await connectByHand(host, 51712);
  t.equal(await store.read(`${backend}/sectors`), '18446744073709551615');
  t.equal(await store.read(`${backend}/max-ring-page-order`), 'many');
  await host.control.writeBackendKey('xvda', 'state', 'four');
  t.equal(await store.read(`${backend}/state`), 'four');
  await store.close();
  await host.close();
});

/** Timers that run when told to. */
class HandTimers {
  nowMs = 0;
  readonly #waiting = new Map<number, { atMs: number; callback: () => void }>();
  #last = 0;

  setTimeout(callback: () => void, delayMs: number): number {
    this.#last += 1;
    this.#waiting.set(this.#last, { atMs: this.nowMs + delayMs, callback });
    return this.#last;
  }

  clearTimeout(handle: unknown): void {
    this.#waiting.delete(handle as number);
  }

  get count(): number {
    return this.#waiting.size;
  }

  /** Lets time pass, with a pause for what each timer starts. */
  async pass(milliseconds: number): Promise<void> {
    const endMs = this.nowMs + milliseconds;
    for (;;) {
      const [next] = [...this.#waiting].sort(([, a], [, b]) => a.atMs - b.atMs);
      if (next === undefined || next[1].atMs > endMs) break;
      this.nowMs = next[1].atMs;
      this.#waiting.delete(next[0]);
      next[1].callback();
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.nowMs = endMs;
  }
}

void t.test('trouble by the clock: the same seed makes the same', async (t) => {
  const histories: string[] = [];
  for (let run = 0; run < 2; run++) {
    const timers = new HandTimers();
    const states: string[] = [];
    const host = await createSimulatedHost({
      disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }],
      faults: {
        ...NO_FAULTS,
        seed: 5,
        restartSeconds: 2,
        resize: { sizeBytes: 2 << 20, afterSeconds: 1 },
        unplugSeconds: 20,
      },
      timers,
    });
    const { store, backend } = await connectByHand(host, 51712);
    // A front end that answers each loss with 6, 1 and waits: it is never connected again, so that
    // the schedule finds nobody to disturb; we connect it by state alone.
    await timers.pass(1500);
    await store.waitFor(`${backend}/sectors`, (value) => value === '4096', { timeoutMs: 2000 });
    for (let round = 0; round < 4; round++) {
      let state = '4';
      for (let turn = 0; state === '4' && turn < 1000; turn++) {
        await timers.pass(10);
        state = await store.read(`${backend}/state`);
      }
      states.push(state);
      await store.write('device/vbd/51712/state', '6');
      await store.waitFor(`${backend}/state`, (value) => value === '6', { timeoutMs: 2000 });
      await new Promise((resolve) => setTimeout(resolve, 5));
      await store.write('device/vbd/51712/state', '1');
      await store.waitFor(`${backend}/state`, (value) => value === '2', { timeoutMs: 2000 });
      await store.write('device/vbd/51712/state', '3');
      await store.waitFor(`${backend}/state`, (value) => value === '4', { timeoutMs: 2000 });
    }
    t.ok(
      states.every((state) => ['2', '5', '6'].includes(state)),
      `lost each time: ${states.join()}`,
    );
    histories.push(states.join());
    const unplugged = timers.pass(20_000);
    await store.waitFor(`${backend}/online`, (value) => value === '0', { timeoutMs: 2000 });
    await store.write('device/vbd/51712/state', '6');
    await unplugged;
    for (let turn = 0; turn < 100 && (await store.directory('device/vbd')).length > 0; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    t.same(await store.directory('device/vbd'), []);
    await store.close();
    await host.close();
  }
  t.equal(histories[0], histories[1]);
});

void t.test('closing a host ends its timers', async (t) => {
  const timers = new HandTimers();
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }],
    faults: { ...NO_FAULTS, restartSeconds: 1, unplugSeconds: 5, hostile: true },
    timers,
  });
  t.equal(timers.count, 3);
  await host.close();
  t.equal(timers.count, 0);
});

void t.test('a restored guest has another id, and nothing of before works', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }] });
  const { store, front, backend } = await connectByHand(host, 51712);
  const page = host.grantPages(0, 1, 'read-write');
  const events: string[] = [];
  await store.watch('domid', (path) => events.push(path));
  await store.watch('device/vbd/51712/state', (path) => events.push(path));
  events.length = 0;
  await host.control.restoreGuest();
  for (let turn = 0; turn < 200 && events.length < 2; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  t.ok(events.includes('domid') && events.includes('device/vbd/51712/state'), 'watches fire again');
  t.equal(await store.read('domid'), '2');
  t.equal(await store.read('device/vbd/51712/state'), '1');
  const newBackend = await store.read('device/vbd/51712/backend');
  t.equal(newBackend, '/local/domain/0/backend/vbd/2/51712');
  await t.rejects(store.read(`${backend}/state`), { code: 'EACCES' });
  front.channel?.notify();
  t.equal(front.words[0], 0, 'the old ring can still be read');
  t.throws(() => host.unbindEventChannel(front.handle), /kernel BUG/);
  t.equal(host.control.leaks().kernelBugs, 1);
  front.pages.revoke();
  page.revoke();
  t.equal(host.control.leaks().grantedPages, 0);

  const again = await connectByHand(host, 51712);
  const fresh = host.grantPages(0, 1, 'read-write').grefs[0] ?? 0;
  read(again.front, 5, fresh);
  again.front.push();
  t.same(await again.front.wait(1), [{ id: 5, operation: 0, status: 0 }]);
  await store.close();
  await again.store.close();
  await host.close();
});

void t.test('a transaction that a restore cuts off is done again', async (t) => {
  const host = await createSimulatedHost({ disks: [] });
  const store = new XenStoreClient(await host.openXenStore());
  let runs = 0;
  await store.transaction(async (transaction) => {
    runs += 1;
    if (runs === 1) await host.control.restoreGuest();
    else await transaction.write('data/x', String(runs));
  });
  t.equal(runs, 2);
  t.equal(await store.read('data/x'), '2');
  await store.close();
  await host.close();
});
