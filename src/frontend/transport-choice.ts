/** How the transport is chosen: what the caller wants, cut to what the back end offers. Pure. */

import { GRANT_PAGE_BYTES, MAX_RING_PAGE_ORDER, type TransportLimits } from '../blkif/index.ts';

/** What the caller wants. Each number is a wish, not a demand. */
export interface TransportWish {
  readonly queues: number;
  readonly ringPageOrder: number;
  /** 0 for none. */
  readonly maxIndirectSegments: number;
  /** Only true when the caller keeps every page granted as long as the connection lives. */
  readonly isPersistent: boolean;
}

/** What will be used. */
export interface TransportChoice {
  readonly queueCount: number;
  readonly ringPageOrder: number;
  readonly maxIndirectSegments: number;
  readonly isPersistent: boolean;
  /** A sentence for each wish that was cut. */
  readonly cuts: readonly string[];
}

/** The transport of a back end that tells no limits: it is at Initialised before us. */
export const PLAIN_TRANSPORT: TransportLimits = {
  maxRingPageOrder: 0,
  maxQueues: 1,
  maxIndirectSegments: 0,
};

/** Chooses the transport. */
export function chooseTransport(wish: TransportWish, limits: TransportLimits): TransportChoice {
  const cuts: string[] = [];
  const cut = (name: string, wanted: number, offered: number): number => {
    if (wanted > offered) {
      cuts.push(`${name} cut from ${wanted} to ${offered}, which is what the back end offers.`);
    }
    return Math.min(wanted, offered);
  };
  return {
    queueCount: cut('Queues', Math.max(1, wish.queues), limits.maxQueues),
    ringPageOrder: cut(
      'Ring page order',
      Math.min(Math.max(0, wish.ringPageOrder), MAX_RING_PAGE_ORDER),
      limits.maxRingPageOrder,
    ),
    maxIndirectSegments: cut(
      'Indirect segments',
      Math.max(0, wish.maxIndirectSegments),
      limits.maxIndirectSegments,
    ),
    isPersistent: wish.isPersistent,
    cuts,
  };
}

/**
 * The next smaller transport, for when the pages of the rings cannot be granted; undefined when
 * there is none. Rings shrink first: a queue is worth more than a deep ring.
 */
export function shrinkTransport(choice: TransportChoice): TransportChoice | undefined {
  if (choice.ringPageOrder > 0) {
    return { ...choice, ringPageOrder: choice.ringPageOrder - 1 };
  }
  return choice.queueCount > 1
    ? { ...choice, queueCount: Math.floor(choice.queueCount / 2) }
    : undefined;
}

/** For the log: `2 queues of 4 ring pages (16384 bytes)`. */
export function describeTransport(choice: TransportChoice): string {
  const pages = 2 ** choice.ringPageOrder;
  const queues = choice.queueCount === 1 ? '1 queue' : `${choice.queueCount} queues`;
  const each = pages === 1 ? '1 ring page' : `${pages} ring pages`;
  return `${queues} of ${each} (${pages * GRANT_PAGE_BYTES} bytes)`;
}
