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

/** What each block may hold: the last acknowledged stamp, or one that was in flight at the kill. */
class ExpectedDisk {
  readonly #acknowledged = new Uint32Array(BLOCK_COUNT);
  readonly #inFlight = new Map<number, number[]>();

  sent(block: number, stamp: number): void {
    const stamps = this.#inFlight.get(block) ?? [];
    stamps.push(stamp);
    this.#inFlight.set(block, stamps);
  }

  acknowledged(block: number, stamp: number): void {
    this.#acknowledged[block] = stamp;
    this.#inFlight.delete(block);
  }

  isBusy(block: number): boolean {
    return this.#inFlight.has(block);
  }

  /** Checks the disk; from then on it holds what it holds. */
  settle(disk: Buffer): void {
    for (let block = 0; block < BLOCK_COUNT; block++) {
      const stamp = stampIn(disk, block);
      const possible = [this.#acknowledged[block] ?? 0, ...(this.#inFlight.get(block) ?? [])];
      ok(possible.includes(stamp), `block ${block} holds ${stamp}, not one of ${possible.join()}`);
      this.#acknowledged[block] = stamp;
    }
    this.#inFlight.clear();
  }
}

/** A block full of one number; anything else in it is a torn write and gives -1. */
function stampIn(disk: Buffer, block: number): number {
  const content = disk.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
  const stamp = content.readUInt32LE(0);
  return content.equals(stampedBlock(stamp)) ? stamp : -1;
}

function stampedBlock(stamp: number): Buffer {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(stamp);
  return Buffer.alloc(BLOCK_BYTES, word);
}

async function killAndRestart(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: BLOCK_BYTES * BLOCK_COUNT });
  const disk = new ExpectedDisk();
  const random = new SeededRandom(99);
  for (let round = 0; round < ROUNDS; round++) await oneRound(lab, vbd, disk, random, round);

  const served = await serveVbd(lab, vbd);
  const { client } = await NbdClient.open(served.address);
  const all = await client.readOk(0, BLOCK_BYTES * BLOCK_COUNT);
  disk.settle(all);
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
      const reply = await client.write(block * BLOCK_BYTES, stampedBlock(mine));
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
