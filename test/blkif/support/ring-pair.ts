/** A ring with both of its ends, for tests. */

import {
  BackRing,
  BlkifAbi,
  createRingArea,
  FrontRing,
  type RingArea,
} from '../../../src/blkif/index.ts';

/** Start indices around everything that could be mistaken in u32 arithmetic. */
export const STARTS: readonly number[] = [
  0, 1, 0x7fff_fff0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffe0, 0xffff_ffff,
];

/** A ring's memory, not at the start of its buffer. */
export function freshArea(ringPageCount = 1, abi: BlkifAbi = BlkifAbi.X86_64): RingArea {
  const buffer = new ArrayBuffer(ringPageCount * 4096 + 64);
  return createRingArea({ buffer, offsetBytes: 64, ringPageCount, abi });
}

export interface Pair {
  readonly area: RingArea;
  readonly front: FrontRing;
  readonly back: BackRing;
}

/** Both ends of a fresh ring. */
export function freshPair(startIndex: number, ringPageCount = 1): Pair {
  const area = freshArea(ringPageCount);
  const front = FrontRing.initialise(area, startIndex);
  return { area, front, back: BackRing.attach(area) };
}

/** @throws Error when the two differ. */
export function expect(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) {
    throw new Error(`${what}: ${String(actual)} instead of ${String(expected)}`);
  }
}
