/**
 * How many pages a device grants, and for what. The guest has one limit for all granted pages
 * (gntalloc's, 1024 unless somebody raised it), and other programs live under it too, so what
 * cannot be had is done without: a smaller pool means more waiting, never an error during I/O.
 */

import { type GrantAccess, type GrantedPages, HostError, type XenHost } from '../host/index.ts';
import { DaemonError } from './errors.ts';

/** Pages for data in transit. More than this only spreads the same load over more cache lines. */
const POOL_PAGES = 768;
/** A pool below this could not move one direct request and the ends of a ragged one. */
const POOL_PAGES_MIN = 24;
const ZERO_PAGES = 16;
const INDIRECT_PAGES = 16;

export interface LanePages {
  readonly pool: GrantedPages;
  readonly zeroes: GrantedPages;
  /** Undefined when requests are direct. */
  readonly indirect: GrantedPages | undefined;
}

/** Grants the pages of `laneCount` lanes. @throws DaemonError when even the least is too much. */
export function grantLanePages(
  host: XenHost,
  domid: number,
  laneCount: number,
  wantsIndirect: boolean,
): LanePages[] {
  const granted: GrantedPages[] = [];
  const grant = (pages: number, access: GrantAccess): GrantedPages => {
    const region = host.grantPages(domid, pages, access);
    granted.push(region);
    return region;
  };
  try {
    const lanes = Array.from({ length: laneCount }, () => ({
      zeroes: grant(ZERO_PAGES, 'read-only'),
      indirect: wantsIndirect ? grant(INDIRECT_PAGES, 'read-only') : undefined,
    }));
    let share = Math.floor(POOL_PAGES / laneCount);
    return lanes.map((lane) => {
      const pool = grantUpTo(grant, share);
      share = pool.pageCount;
      return { ...lane, pool };
    });
  } catch (error) {
    for (const region of granted) region.revoke();
    if (!(error instanceof HostError) || error.code !== 'LIMIT') throw error;
    const budget = host.grantBudget();
    throw new DaemonError(
      `too few pages may be granted: this needs at least ` +
        `${laneCount * (POOL_PAGES_MIN + ZERO_PAGES)} of the guest's ${budget.limitPages}, and others ` +
        `hold some; raise the limit in ${budget.source}`,
      { cause: error },
    );
  }
}

/** The largest region that can be had, from `wanted` pages downwards. */
function grantUpTo(
  grant: (pages: number, access: GrantAccess) => GrantedPages,
  wanted: number,
): GrantedPages {
  for (let pages = wanted; ; pages = Math.max(POOL_PAGES_MIN, Math.floor((pages * 3) / 4))) {
    try {
      return grant(pages, 'read-write');
    } catch (error) {
      const isLimit = error instanceof HostError && error.code === 'LIMIT';
      if (!isLimit || pages <= POOL_PAGES_MIN) throw error;
    }
  }
}
