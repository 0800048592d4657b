/**
 * What the front end tells in XenStore (xen/include/public/io/blkif.h, "Frontend XenBus Nodes"):
 * as key and value pairs, and back.
 */

import {
  isPowerOfTwo,
  KeyError,
  type KeyValues,
  MAX_U32,
  parseFlagKey,
  parseNumberKey,
} from './keys.ts';
import { BlkifAbi, parseBlkifAbi } from './layout.ts';

/** Keys that the front end writes. */
export const FrontendKey = {
  RING_REF: 'ring-ref',
  RING_PAGE_ORDER: 'ring-page-order',
  /** The old spelling: a count of pages. Never written, but deleted. */
  NUM_RING_PAGES: 'num-ring-pages',
  EVENT_CHANNEL: 'event-channel',
  PROTOCOL: 'protocol',
  FEATURE_PERSISTENT: 'feature-persistent',
  MULTI_QUEUE_NUM_QUEUES: 'multi-queue-num-queues',
} as const;
export type FrontendKey = (typeof FrontendKey)[keyof typeof FrontendKey];

/** One queue, as the front end tells it. */
export interface QueueOffer {
  /** The grants of the ring's pages, in order: 2^order of them, the same number in each queue. */
  readonly ringGrefs: ArrayLike<number>;
  /** Our port of the event channel. */
  readonly port: number;
}

/** What the front end tells the back end before it goes to Initialised. */
export interface FrontendOffer {
  readonly abi: BlkifAbi;
  /** Only true when every page stays granted as long as the connection lives. */
  readonly isPersistent: boolean;
  readonly queues: readonly QueueOffer[];
}

/**
 * The front end's keys in the order to write them, relative to its directory; `state` follows
 * them and is not among them.
 *
 * One page: `ring-ref` and nothing of `ring-page-order`, whose mere presence makes Linux look for
 * `ring-ref0`. More: `ring-page-order` (always at the top) and `ring-ref0` on. One queue: at the
 * top level; more: `queue-N/` and `multi-queue-num-queues`, and nothing at the top.
 */
export function encodeFrontendKeys(offer: FrontendOffer): [key: string, value: string][] {
  const { queues } = offer;
  const pageCount = queues[0]?.ringGrefs.length ?? 0;
  if (!isPowerOfTwo(pageCount) || queues.some((queue) => queue.ringGrefs.length !== pageCount)) {
    throw new RangeError('Every queue needs the same number of ring pages, a power of two.');
  }
  const keys: [string, string][] = [];
  if (queues.length > 1) {
    keys.push([FrontendKey.MULTI_QUEUE_NUM_QUEUES, String(queues.length)]);
  }
  if (pageCount > 1) {
    keys.push([FrontendKey.RING_PAGE_ORDER, String(Math.log2(pageCount))]);
  }
  for (const [index, queue] of queues.entries()) {
    const prefix = queues.length > 1 ? `queue-${index}/` : '';
    for (const [page, gref] of Array.from(queue.ringGrefs).entries()) {
      const suffix = pageCount > 1 ? String(page) : '';
      keys.push([`${prefix}${FrontendKey.RING_REF}${suffix}`, String(gref)]);
    }
    keys.push([`${prefix}${FrontendKey.EVENT_CHANNEL}`, String(queue.port)]);
  }
  // Always: Linux on x86 takes the 32-bit layout when it is missing.
  keys.push([FrontendKey.PROTOCOL, offer.abi]);
  keys.push([FrontendKey.FEATURE_PERSISTENT, offer.isPersistent ? '1' : '0']);
  return keys;
}

/**
 * Whether a name in a front end's directory belongs to an earlier connection and must go before a
 * new one: what is left of it makes the next handshake fail. `protocol` and `feature-persistent`
 * are always written anew and may also come from the toolstack, so they stay.
 */
export function isConnectionKey(name: string): boolean {
  switch (name) {
    case FrontendKey.RING_PAGE_ORDER:
    case FrontendKey.NUM_RING_PAGES:
    case FrontendKey.EVENT_CHANNEL:
    case FrontendKey.MULTI_QUEUE_NUM_QUEUES:
      return true;
    default:
      return /^(?:ring-ref[0-9]*|queue-[0-9]+)$/.test(name);
  }
}

/** The front end's top-level keys, as the back end reads them. */
export interface FrontendRequest {
  readonly abi: BlkifAbi;
  readonly isPersistent: boolean;
  readonly queueCount: number;
  /** Undefined when the key is missing: then `ring-ref` is not numbered. */
  readonly ringPageOrder: number | undefined;
}

/**
 * Parses the front end's top-level keys with the defaults of Linux's back end: one queue, one
 * page, and the 32-bit x86 layout when `protocol` is missing. Whether the counts are within the
 * offer is the back end's to check.
 *
 * @throws KeyError
 */
export function parseFrontendKeys(keys: KeyValues): FrontendRequest {
  const protocol = keys.get(FrontendKey.PROTOCOL);
  const abi = protocol === undefined ? BlkifAbi.X86_32 : parseBlkifAbi(protocol);
  if (abi === undefined) {
    throw new KeyError(FrontendKey.PROTOCOL, protocol, 'the protocol is unknown');
  }
  return {
    abi,
    isPersistent: parseFlagKey(keys, FrontendKey.FEATURE_PERSISTENT),
    queueCount: parseNumberKey(keys, FrontendKey.MULTI_QUEUE_NUM_QUEUES, MAX_U32, 1),
    ringPageOrder: keys.has(FrontendKey.RING_PAGE_ORDER)
      ? parseNumberKey(keys, FrontendKey.RING_PAGE_ORDER, MAX_U32)
      : undefined,
  };
}
