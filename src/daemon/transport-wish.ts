/** What is asked of a backend, and cut to what it offers. */

import { availableParallelism } from 'node:os';
import type { TransportWish } from '../frontend/index.ts';
import { LANES_MAX, POOL_PAGES_GOOD, POOL_PAGES_MIN, poolPagesPerDevice } from './page-budget.ts';

const RING_PAGE_ORDER = 2;
const INDIRECT_SEGMENTS = 256;

/** What of the transport people choose. */
export interface TransportUse {
  /** Undefined for as many as do good. */
  readonly queues: number | undefined;
  /** Undefined for a good ring. */
  readonly ringPageOrder: number | undefined;
}

/** The part of one device in what the guest has. */
export interface DeviceShare {
  /** Pages for data in transit, at most, of all its lanes together. */
  readonly poolPagesMax: number;
  /** May be a fraction. */
  readonly coreCount: number;
}

/** What each of `deviceCount` devices may have, where `limitPages` pages may be granted in all. */
export function deviceShare(limitPages: number, deviceCount: number): DeviceShare {
  return {
    poolPagesMax: poolPagesPerDevice(limitPages, deviceCount),
    coreCount: availableParallelism() / deviceCount,
  };
}

/** The whole wish, of which people choose a part, for a device with this share. */
export function transportWish(
  { queues, ringPageOrder }: TransportUse,
  share: DeviceShare,
): TransportWish {
  return {
    queues: queues ?? goodQueues(share),
    ringPageOrder: ringPageOrder ?? goodRingPageOrder(share),
    maxIndirectSegments: INDIRECT_SEGMENTS,
    // Pages are granted once and kept, and one page is never in two requests at once.
    isPersistent: true,
  };
}

/**
 * How many lanes serve a vbd well: one for each core, as xen-blkfront has queues. With fewer, cores
 * are idle while clients wait for the lane they share; a lane that has nothing to do sleeps. But
 * each has to have the pages for a deep queue.
 */
export function goodQueues({ coreCount, poolPagesMax }: DeviceShare): number {
  const byCores = Math.floor(coreCount);
  const byPages = Math.floor(poolPagesMax / POOL_PAGES_GOOD);
  return Math.max(1, Math.min(byCores, byPages, LANES_MAX));
}

/** Where pages are so few that a large ring could take the last ones, a small one does. */
function goodRingPageOrder({ poolPagesMax }: DeviceShare): number {
  return poolPagesMax > POOL_PAGES_MIN ? RING_PAGE_ORDER : 0;
}
