/**
 * Goal: delays, errors, crashes and power failures are really made, can be asked for alone, and end
 * cleanly. Method: one front end by hand; rings are served step by step in this thread with a clock
 * of the test's own, so that "late" is exact.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { NO_FAULTS } from '../../src/sim/index.ts';
import { bytesOf, connectByHand } from './hand-front.ts';
import { read, Stepped, write } from './stepped-host.ts';

const directory = mkdtempSync(join(tmpdir(), 'sim-faults-'));
t.teardown(() => rmSync(directory, { recursive: true }));

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
