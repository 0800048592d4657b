/** What a successful handshake gives: the disk, and the rings with their doorbells. */

import type { BlkifAbi, DiskProperties } from '../blkif/index.ts';
import type { EventChannelHandle, GrantedPages } from '../host/index.ts';
import type { VbdDescription } from './vbd.ts';

/** One ring with its event channel, for one lane. */
export interface AttachedQueue {
  /** The ring's pages. The shared header is initialised and no request was sent. */
  readonly ring: GrantedPages;
  readonly ringPageOrder: number;
  readonly slotCount: number;
  readonly eventChannel: EventChannelHandle;
}

/** A connection to a back end. Plain data; it is over when the front end says so. */
export interface Attachment {
  readonly vbd: VbdDescription;
  /** The domain that serves the disk: pages for it are granted to this one. */
  readonly backendId: number;
  /** Its directory in XenStore. */
  readonly backendPath: string;
  readonly abi: BlkifAbi;
  readonly disk: DiskProperties;
  /** At least one; as many as both ends want. */
  readonly queues: readonly AttachedQueue[];
  /** Most segments of an indirect request, or 0 when there are no indirect requests. */
  readonly maxIndirectSegments: number;
  /** Whether both ends keep the same pages granted: then one page is never in two requests. */
  readonly isPersistent: boolean;
  /** 1 for the first connection, and one more for each that follows. */
  readonly generation: number;
  /**
   * Whether pages that were granted for the previous connection cannot be used on this one, because
   * the back end is in another domain or this guest was restored: grant new ones.
   */
  readonly areGrantsLost: boolean;
}

/** Why a connection ended, for the lanes and the log. */
export type DetachReason =
  | 'backend-closing'
  | 'unplugging'
  | 'backend-closed'
  | 'backend-restarted'
  | 'backend-gone'
  | 'vbd-gone'
  | 'vbd-reset'
  | 'guest-restored'
  | 'given-up';
