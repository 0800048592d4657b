/**
 * A back end that lies on one ring: once, with its next response or with its producer index. After
 * that it is silent. Each lie is one that the front end can tell from the truth.
 */

import type { RingArea } from '../../src/blkif/index.ts';
import type { Job } from '../../src/sim/blkback-engine.ts';

const RSP_PROD = 2;

/** What it may say. */
export const LIES = [
  'unknown-id',
  'idle-id',
  'huge-id',
  'unknown-status',
  'other-operation',
  'producer-ahead',
  'producer-back',
] as const;
export type Lie = (typeof LIES)[number];

export class Liar {
  readonly #area: RingArea;
  #next: Lie | undefined;
  /** Told, or being told: nothing true comes after it. */
  hasLied = false;
  /** The producer index is a lie. */
  isIndexBent = false;
  /** What it said. */
  told: Lie | undefined;

  constructor(area: RingArea) {
    this.#area = area;
  }

  /** Lies at once, or with the next response. */
  lie(lie: Lie): void {
    const { words } = this.#area;
    if (lie === 'producer-ahead') {
      this.#tell(lie);
      this.isIndexBent = true;
      Atomics.add(words, RSP_PROD, this.#area.slotCount + 1);
    } else if (lie === 'producer-back') {
      this.#tell(lie);
      this.isIndexBent = true;
      // Behind what the front end has read, however much it has not read yet.
      Atomics.sub(words, RSP_PROD, this.#area.slotCount + 1);
    } else {
      this.#next = lie;
    }
  }

  /** Bends a response that is about to be written. `idleId` is of no request in flight. */
  bend(job: Job, idleId: () => number): void {
    const lie = this.#next;
    if (lie === undefined) return;
    this.#next = undefined;
    this.#tell(lie);
    switch (lie) {
      case 'unknown-id':
        job.idLow = this.#area.slotCount + 7;
        return;
      case 'idle-id':
        job.idLow = idleId();
        return;
      case 'huge-id':
        job.idHigh = 1;
        return;
      case 'unknown-status':
        job.status = -3;
        return;
      default:
        job.operation = 4;
    }
  }

  #tell(lie: Lie): void {
    this.told = lie;
    this.hasLied = true;
  }
}
