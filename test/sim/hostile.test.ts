/**
 * Goal: each kind of lie of a hostile back end is told, alone, as it was asked for. Method: one
 * front end by hand looks at the bytes of the ring and at the keys.
 */

import t from 'tap';
import { createSimulatedHost, type RingLie } from '../../src/sim/index.ts';
import { bytesOf, connectByHand, type HandFront, type HandResponse } from './hand-front.ts';
import { read, Stepped } from './stepped-host.ts';

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
