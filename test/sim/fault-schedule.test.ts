/**
 * Goal: trouble by the clock comes when it should, is that of its seed, and ends with the host.
 * Method: timers that the test drives; a front end that answers each loss by hand.
 */

import t from 'tap';
import { createSimulatedHost, NO_FAULTS } from '../../src/sim/index.ts';
import { connectByHand } from './hand-front.ts';

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
    await store.waitFor(`${backend}/sectors`, (value) => value === '4096', { timeoutMs: 30_000 });
    for (let round = 0; round < 4; round++) {
      let state = '4';
      for (let turn = 0; state === '4' && turn < 1000; turn++) {
        await timers.pass(10);
        state = await store.read(`${backend}/state`);
      }
      states.push(state);
      await store.write('device/vbd/51712/state', '6');
      await store.waitFor(`${backend}/state`, (value) => value === '6', { timeoutMs: 30_000 });
      await new Promise((resolve) => setTimeout(resolve, 5));
      await store.write('device/vbd/51712/state', '1');
      await store.waitFor(`${backend}/state`, (value) => value === '2', { timeoutMs: 30_000 });
      await store.write('device/vbd/51712/state', '3');
      await store.waitFor(`${backend}/state`, (value) => value === '4', { timeoutMs: 30_000 });
    }
    t.ok(
      states.every((state) => ['2', '5', '6'].includes(state)),
      `lost each time: ${states.join()}`,
    );
    histories.push(states.join());
    const unplugged = timers.pass(20_000);
    await store.waitFor(`${backend}/online`, (value) => value === '0', { timeoutMs: 30_000 });
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

void t.test('an unplug that nobody answers does not keep a host from closing', async (t) => {
  const timers = new HandTimers();
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }],
    faults: { ...NO_FAULTS, unplugSeconds: 1 },
    timers,
  });
  const { store, backend } = await connectByHand(host, 51712);
  await timers.pass(1000);
  await store.waitFor(`${backend}/state`, (value) => value === '5', { timeoutMs: 30_000 });
  await store.close();
  await host.close();
  t.pass('closed');
});
