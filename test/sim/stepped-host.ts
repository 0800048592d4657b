/** A simulated host for tests that decide when its rings are served, and by which clock. */

import {
  createSimulatedHost,
  type ServingThread,
  type SimulatedHost,
  type SimulatedHostOptions,
  SteppedRings,
} from '../../src/sim/index.ts';
import type { HandFront } from './hand-front.ts';

/** A host whose rings are served when told to, at a time of our own. */
export class Stepped {
  readonly host: SimulatedHost;
  readonly rings: SteppedRings;
  readonly #clock: { nowMs: number };

  private constructor(host: SimulatedHost, rings: SteppedRings, clock: { nowMs: number }) {
    this.host = host;
    this.rings = rings;
    this.#clock = clock;
  }

  static async start(
    options: Partial<SimulatedHostOptions>,
    thread: ServingThread = {},
  ): Promise<Stepped> {
    const clock = { nowMs: 1000 };
    const rings = new SteppedRings(() => clock.nowMs, thread);
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

/** Reads a page by hand. */
export function read(front: HandFront, id: number, gref: number, sector = 0): void {
  front.putDirect(0, id, sector, [{ gref, first: 0, last: 7 }]);
}

/** Writes a page by hand. */
export function write(front: HandFront, id: number, gref: number, sector: number): void {
  front.putDirect(1, id, sector, [{ gref, first: 0, last: 7 }]);
}
