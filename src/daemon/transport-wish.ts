/** What is asked of a backend, and cut to what it offers. */

import type { TransportWish } from '../frontend/index.ts';

const RING_PAGE_ORDER = 2;
const INDIRECT_SEGMENTS = 256;

/** What of the transport people choose; undefined for a good ring. */
export interface TransportUse {
  readonly queues: number;
  readonly ringPageOrder: number | undefined;
}

/** The whole wish, of which people choose a part. */
export function transportWish({ queues, ringPageOrder }: TransportUse): TransportWish {
  return {
    queues,
    ringPageOrder: ringPageOrder ?? RING_PAGE_ORDER,
    maxIndirectSegments: INDIRECT_SEGMENTS,
    // Pages are granted once and kept, and one page is never in two requests at once.
    isPersistent: true,
  };
}
