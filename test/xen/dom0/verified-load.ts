/**
 * Reads and writes of many clients at once, with everything checked: a read must bring what was
 * last acknowledged, and at the end the backing file must hold it. Runs while the scenario makes
 * trouble, and tells whether the clients noticed more than a pause.
 */
import { ok, strictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Address } from '../../support/byte-connection.ts';
import { NbdClient } from '../../support/nbd-client.ts';
import { Errno } from '../../support/nbd-wire.ts';
import { SeededRandom } from '../../support/random.ts';
import { ExpectedDisk, stampedBlock, stampIn } from './stamped-disk.ts';

export interface LoadOptions {
  readonly address: Address;
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly connections: number;
  /** Requests in flight on each connection. */
  readonly depth: number;
  readonly seed: number;
}

export class VerifiedLoad {
  readonly disk: ExpectedDisk;
  readonly #options: LoadOptions;
  readonly #random: SeededRandom;
  readonly #clients: NbdClient[];
  readonly #workers: Promise<void>[] = [];
  readonly #busy = new Set<number>();
  #nextStamp = 1;
  #isStopping = false;
  #completed = 0;
  #failure: Error | undefined;

  private constructor(options: LoadOptions, clients: NbdClient[]) {
    this.#options = options;
    this.#clients = clients;
    this.#random = new SeededRandom(options.seed);
    this.disk = new ExpectedDisk(options.blockBytes, options.blockCount);
  }

  static async start(options: LoadOptions): Promise<VerifiedLoad> {
    const clients: NbdClient[] = [];
    for (let index = 0; index < options.connections; index++) {
      const { client } = await NbdClient.open(options.address);
      clients.push(client);
    }
    const load = new VerifiedLoad(options, clients);
    for (const client of clients) {
      for (let index = 0; index < options.depth; index++) load.#workers.push(load.#work(client));
    }
    return load;
  }

  /** Requests answered so far. */
  get completed(): number {
    return this.#completed;
  }

  /** What went wrong, if anything did. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Waits until `count` more requests were answered: the load is alive. */
  async waitForProgress(count: number, timeoutMs: number): Promise<void> {
    const goal = this.#completed + count;
    const deadline = Date.now() + timeoutMs;
    while (this.#completed < goal) {
      if (this.#failure !== undefined) throw this.#failure;
      ok(Date.now() < deadline, `only ${this.#completed} of ${goal} requests were answered`);
      await sleep(20);
    }
  }

  /** Ends the load, flushes and disconnects. From then on every write is acknowledged. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#workers);
    if (this.#failure !== undefined) throw this.#failure;
    const [first] = this.#clients;
    ok(first !== undefined);
    strictEqual((await first.flush()).error, Errno.OK);
    for (const client of this.#clients) await client.disconnect();
  }

  /** Ends the load and compares the whole disk with the backing file. */
  async finish(backingFile: string): Promise<void> {
    await this.stop();
    this.disk.settle(readFileSync(backingFile), `seed ${this.#options.seed}`);
  }

  /** One request after the other, until told to stop. The first failure of any stops all. */
  async #work(client: NbdClient): Promise<void> {
    try {
      while (!this.#isStopping && this.#failure === undefined) await this.#oneRequest(client);
    } catch (error) {
      this.#failure ??= error instanceof Error ? error : new Error(String(error));
    }
  }

  async #oneRequest(client: NbdClient): Promise<void> {
    const { blockBytes, blockCount } = this.#options;
    let block = this.#random.below(blockCount);
    while (this.#busy.has(block)) block = (block + 1) % blockCount;
    this.#busy.add(block);
    if (this.#random.chance(0.6)) {
      const stamp = this.#nextStamp++;
      this.disk.sent(block, stamp);
      const reply = await client.write(block * blockBytes, stampedBlock(stamp, blockBytes));
      strictEqual(reply.error, Errno.OK, `write of block ${block}: error ${reply.error}`);
      this.disk.acknowledged(block, stamp);
    } else {
      const data = await client.readOk(block * blockBytes, blockBytes);
      const expected = this.disk.acknowledgedStamp(block);
      strictEqual(stampIn(data, 0, blockBytes), expected, `block ${block} was read`);
    }
    this.#busy.delete(block);
    this.#completed++;
  }
}
