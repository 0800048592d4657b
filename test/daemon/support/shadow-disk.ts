// Reads and writes at random on one connection, compared with what a disk must hold.
import assert from 'node:assert/strict';
import type { NbdClient } from '../../support/nbd-client.ts';
import { Errno } from '../../support/nbd-wire.ts';
import type { SeededRandom } from '../../support/random.ts';

const IN_FLIGHT = 16;

/** A range of the disk that this client alone writes. Offsets and lengths are bytes. */
export class ShadowDisk {
  readonly #client: NbdClient;
  readonly #random: SeededRandom;
  readonly #first: number;
  readonly #expected: Buffer;
  requestCount = 0;

  constructor(client: NbdClient, random: SeededRandom, first: number, length: number) {
    this.#client = client;
    this.#random = random;
    this.#first = first;
    this.#expected = Buffer.alloc(length);
  }

  /** Works until `isOver`, many requests at once that do not overlap. @throws AssertionError */
  async work(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const slice = Math.floor(this.#expected.length / IN_FLIGHT);
      const requests = Array.from({ length: IN_FLIGHT }, (_, index) => {
        const length = 1 + this.#random.below(Math.min(slice, 100_000));
        const at = index * slice + this.#random.below(slice - length + 1);
        return this.#one(at, length);
      });
      await Promise.all(requests);
    }
  }

  /** Compares all of it. @throws AssertionError */
  async verify(): Promise<void> {
    const bytes = await this.#client.readOk(this.#first, this.#expected.length);
    assert.ok(bytes.equals(this.#expected), 'the disk holds what was written');
  }

  async #one(at: number, length: number): Promise<void> {
    this.requestCount += 1;
    if (this.#random.chance(0.1)) {
      assert.equal((await this.#client.flush()).error, Errno.OK, 'flush');
    } else if (this.#random.chance(0.6)) {
      const bytes = Buffer.alloc(length, this.#random.bytes(7));
      bytes.copy(this.#expected, at);
      const flags = this.#random.chance(0.1) ? 1 : 0;
      const { error } = await this.#client.write(this.#first + at, bytes, flags);
      assert.equal(error, Errno.OK, `write of ${length} at ${at}`);
    } else {
      const expected = Buffer.from(this.#expected.subarray(at, at + length));
      const bytes = await this.#client.readOk(this.#first + at, length);
      assert.ok(bytes.equals(expected), `read of ${length} at ${at}`);
    }
  }
}
