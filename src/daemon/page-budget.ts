/**
 * How many pages a device grants, and for what. The guest has one limit for all granted pages
 * (gntalloc's, 1024 unless somebody raised it), and other programs live under it too, so what
 * cannot be had is done without: a smaller pool means more waiting, never an error during I/O.
 */

import { setTimeout as delay } from 'node:timers/promises';
import {
  type GrantAccess,
  type GrantBudget,
  type GrantedPages,
  HostError,
  type XenHost,
} from '../host/index.ts';
import { DaemonError } from './errors.ts';

/** Pages of a lane for data in transit. More only spread the same load over more cache lines. */
export const POOL_PAGES_MAX = 768;
/** Pages for each of several lanes: with fewer, requests of a deep queue wait for them. */
export const POOL_PAGES_GOOD = 384;
/** Lanes that a device starts with when nobody says how many. */
export const LANES_MAX = 4;
/** A pool below this could not move one direct request and the ends of a ragged one. */
export const POOL_PAGES_MIN = 24;
const ZERO_PAGES = 16;
const INDIRECT_PAGES = 16;
/** Pages of the largest ring. */
const RING_PAGES_MAX = 16;

/**
 * How many pages for data in transit each of `deviceCount` devices may have, so that the first does
 * not take what the last needs, and some are left for other programs.
 */
export function poolPagesPerDevice(limitPages: number, deviceCount: number): number {
  const sharePages = Math.floor((limitPages * 7) / 8 / deviceCount);
  const otherPages = ZERO_PAGES + INDIRECT_PAGES + RING_PAGES_MAX;
  return Math.max(POOL_PAGES_MIN, Math.min(LANES_MAX * POOL_PAGES_MAX, sharePages - otherPages));
}

/** Pages that one device with `laneCount` rings grants. */
export interface PageNeed {
  /** Without these it does not start. */
  readonly leastPages: number;
  /** With these it is fast. */
  readonly goodPages: number;
}

/** What a device needs of the guest's limit; it takes all that it can have in between. */
export function pageNeed(laneCount: number, ringPageOrder: number, isIndirect: boolean): PageNeed {
  const otherPages = ZERO_PAGES + (isIndirect ? INDIRECT_PAGES : 0);
  const goodPoolPages = Math.max(POOL_PAGES_MAX, laneCount * POOL_PAGES_GOOD);
  return {
    // Rings shrink to one page each when the limit is low.
    leastPages: laneCount * (POOL_PAGES_MIN + otherPages + 1),
    goodPages: goodPoolPages + laneCount * (otherPages + 2 ** ringPageOrder),
  };
}

export interface LanePages {
  /** What the backend may do with the last two: with persistent grants it maps all for writing. */
  readonly access: GrantAccess;
  readonly pool: GrantedPages;
  readonly zeroes: GrantedPages;
  /** Undefined when requests are direct. */
  readonly indirect: GrantedPages | undefined;
}

/**
 * Grants the pages of `laneCount` lanes: pools of a common size, as large as can be had up to
 * `poolPagesMax` together.
 *
 * @throws DaemonError when even the least is too much.
 */
export function grantLanePages(
  host: XenHost,
  domid: number,
  laneCount: number,
  features: {
    readonly isIndirect: boolean;
    readonly isPersistent: boolean;
    readonly poolPagesMax: number;
  },
): LanePages[] {
  const granted: GrantedPages[] = [];
  const grant = (pages: number, access: GrantAccess): GrantedPages => {
    const region = host.grantPages(domid, pages, access);
    granted.push(region);
    return region;
  };
  const access: GrantAccess = features.isPersistent ? 'read-write' : 'read-only';
  try {
    const lanes = Array.from({ length: laneCount }, () => ({
      access,
      zeroes: grant(ZERO_PAGES, access),
      indirect: features.isIndirect ? grant(INDIRECT_PAGES, access) : undefined,
    }));
    const fairShare = Math.min(POOL_PAGES_MAX, Math.floor(features.poolPagesMax / laneCount));
    let share = Math.max(POOL_PAGES_MIN, fairShare);
    return lanes.map((lane) => {
      const pool = grantUpTo(grant, share);
      share = pool.pageCount;
      return { ...lane, pool };
    });
  } catch (error) {
    for (const region of granted) region.revoke();
    if (!(error instanceof HostError) || error.code !== 'LIMIT') throw error;
    const budget = host.grantBudget();
    const { leastPages } = pageNeed(laneCount, 0, features.isIndirect);
    throw new DaemonError(
      `too few pages may be granted: this needs at least ${leastPages} of the guest's ` +
        `${budget.limitPages}, and others may hold some; raise the limit in ${budget.source}`,
      { cause: error },
    );
  }
}

/** Gives back the pages of a lane, which must not touch them any more. */
export function revokeLanePages({ pool, zeroes, indirect }: LanePages): void {
  pool.revoke();
  zeroes.revoke();
  indirect?.revoke();
}

/** Who waits for pages that were granted before. */
export interface Regrant {
  /** Undefined for that of before. */
  readonly access: GrantAccess | undefined;
  /** Whether anybody waits still. */
  readonly isWanted: () => boolean;
  /** There are too few, and they are waited for: called once. */
  readonly onWait: (budget: GrantBudget) => void;
}

const REGRANT_PAUSE_MS = 1_000;

/**
 * Gives back the pages of `lanes` and grants as many anew. Others may take some in between: lanes
 * cannot do with fewer, since requests that were not answered are in them, so they are waited for.
 *
 * @throws DaemonError when nobody wants them any more.
 */
export async function grantAgain(
  host: XenHost,
  domid: number,
  lanes: readonly LanePages[],
  { access, isWanted, onWait }: Regrant,
): Promise<LanePages[]> {
  for (const pages of lanes) revokeLanePages(pages);
  for (let isFirst = true; isWanted(); isFirst = false) {
    const granted = tryGrantAgain(host, domid, lanes, access);
    if (granted !== undefined) return granted;
    if (isFirst) onWait(host.grantBudget());
    await delay(REGRANT_PAUSE_MS);
  }
  throw new DaemonError('the vbd was closed while it waited for pages');
}

/** All of them or, where the limit does not allow that, undefined. */
function tryGrantAgain(
  host: XenHost,
  domid: number,
  lanes: readonly LanePages[],
  access: GrantAccess | undefined,
): LanePages[] | undefined {
  const regions: GrantedPages[] = [];
  const grant = (pageCount: number, kind: GrantAccess): GrantedPages => {
    const region = host.grantPages(domid, pageCount, kind);
    regions.push(region);
    return region;
  };
  try {
    return lanes.map((lane) => {
      const kind = access ?? lane.access;
      return {
        access: kind,
        pool: grant(lane.pool.pageCount, 'read-write'),
        zeroes: grant(lane.zeroes.pageCount, kind),
        indirect: lane.indirect && grant(lane.indirect.pageCount, kind),
      };
    });
  } catch (error) {
    for (const region of regions) region.revoke();
    if (error instanceof HostError && error.code === 'LIMIT') return undefined;
    throw error;
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
