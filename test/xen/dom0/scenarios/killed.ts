/**
 * kill -9 in the middle of writes, and start again. What was acknowledged before the kill must be
 * in the backing file; what was in flight may be there or not, block by block.
 */
import { ok, strictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConnectionEnded } from '../../../support/byte-connection.ts';
import { NbdClient } from '../../../support/nbd-client.ts';
import { Errno } from '../../../support/nbd-wire.ts';
import { SeededRandom } from '../../../support/random.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { ExpectedDisk, stampedBlock } from '../stamped-disk.ts';
import { createVbd, states, type Vbd } from '../vbd-fixture.ts';

const BLOCK_BYTES = 4096;
const BLOCK_COUNT = 1024;
const DEPTH = 16;
const ROUNDS = 5;

export const killed: Scenario = {
  name: 'kill -9 in the middle of writes, five times: nothing acknowledged is lost',
  timeoutMs: 300_000,
  run: killAndRestart,
};

async function killAndRestart(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: BLOCK_BYTES * BLOCK_COUNT });
  const disk = new ExpectedDisk(BLOCK_BYTES, BLOCK_COUNT);
  const random = new SeededRandom(99);
  for (let round = 0; round < ROUNDS; round++) await oneRound(lab, vbd, disk, random, round);

  const served = await serveVbd(lab, vbd);
  const { client } = await NbdClient.open(served.address);
  const all = await client.readOk(0, BLOCK_BYTES * BLOCK_COUNT);
  disk.settle(all, 'after five kills');
  ok(all.equals(readFileSync(vbd.file)), 'the disk and the backing file agree');
  await client.disconnect();
  await served.stop();
  strictEqual(await states(vbd), '6/6');
  lab.step('after a start, a full read and SIGTERM: all as acknowledged, 6/6');
}

async function oneRound(
  lab: Lab,
  vbd: Vbd,
  disk: ExpectedDisk,
  random: SeededRandom,
  round: number,
): Promise<void> {
  const served = await serveVbd(lab, vbd);
  const { client } = await NbdClient.open(served.address);
  let isKilled = false;
  let acknowledged = 0;
  let stamp = (round + 1) << 20;
  const writer = async (): Promise<void> => {
    while (!isKilled) {
      const block = random.below(BLOCK_COUNT);
      if (disk.isBusy(block)) continue;
      const mine = stamp++;
      disk.sent(block, mine);
      const reply = await client.write(block * BLOCK_BYTES, stampedBlock(mine, BLOCK_BYTES));
      strictEqual(reply.error, Errno.OK);
      disk.acknowledged(block, mine);
      acknowledged++;
    }
  };
  const writers = Array.from({ length: DEPTH }, () => writer().catch((error: Error) => error));
  while (acknowledged < 200) await sleep(20);
  const end = await served.kill();
  isKilled = true;
  strictEqual(end.signal, 'SIGKILL');
  const ends = (await Promise.all(writers)).filter((end) => end !== undefined);
  for (const error of ends) ok(error instanceof ConnectionEnded, String(error));
  ok(ends.length > 0, 'the kill hit requests in flight');
  lab.step(
    `round ${round + 1}: killed after ${acknowledged} acknowledged writes, ` +
      `${ends.length} in flight, states ${await states(vbd)}`,
  );
}
