/** What the backend has answered with an error: counted by kind, with the place of the last. */

import { BlkifOp } from '../blkif/index.ts';
import { Counter, type Counters } from './counters.ts';
import { type Part, PartRole } from './part.ts';

/** Stands in {@link Counter.FAILED_BYTE} for a request that is about no place. */
const NO_PLACE = -1;

/** Called for a part with an error as its status, before the part is given back. */
export function countFailure({ values }: Counters, part: Part): void {
  values[Counter.FAILED_MS] = values[Counter.CLOCK_MS_NOW];
  switch (part.role) {
    case PartRole.FLUSH:
      values[Counter.FAILED_FLUSHES] += 1;
      values[Counter.FAILED_BYTE] = NO_PLACE;
      return;
    case PartRole.DISCARD:
      values[Counter.FAILED_TRIMS] += 1;
      values[Counter.FAILED_BYTE] = part.operation?.firstByte ?? NO_PLACE;
      return;
    default: {
      const isRead = part.blkifOp === BlkifOp.BLKIF_OP_READ;
      values[isRead ? Counter.FAILED_READS : Counter.FAILED_WRITES] += 1;
      values[Counter.FAILED_BYTE] = part.firstByte;
    }
  }
}
