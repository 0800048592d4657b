/** What is asked of a backend, and cut to what it offers. */

import { availableParallelism } from 'node:os';
import type { TransportWish } from '../frontend/index.ts';

const RING_PAGE_ORDER = 2;
const INDIRECT_SEGMENTS = 256;
/** A lane with fewer pages than this waits for pages where a single lane would not. */
const GOOD_LANE_PAGES = 192;

/** What of the transport people choose. */
export interface TransportUse {
  /** Undefined for as many as do good. */
  readonly queues: number | undefined;
  /** Undefined for a good ring. */
  readonly ringPageOrder: number | undefined;
}

/** The whole wish, of which people choose a part, for a device that gets `poolPagesMax` pages. */
export function transportWish(
  { queues, ringPageOrder }: TransportUse,
  poolPagesMax: number,
): TransportWish {
  return {
    queues: queues ?? goodQueues(availableParallelism(), poolPagesMax),
    ringPageOrder: ringPageOrder ?? RING_PAGE_ORDER,
    maxIndirectSegments: INDIRECT_SEGMENTS,
    // Pages are granted once and kept, and one page is never in two requests at once.
    isPersistent: true,
  };
}

/**
 * How many lanes serve a vbd well: a lane keeps one core busy, its clients and the rest of the
 * guest keep another, and the pages for data in transit are divided among the lanes.
 */
export function goodQueues(coreCount: number, poolPagesMax: number): number {
  const byCores = Math.floor(coreCount / 2);
  const byPages = Math.floor(poolPagesMax / GOOD_LANE_PAGES);
  return Math.max(1, Math.min(byCores, byPages));
}
