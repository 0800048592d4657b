/** What a front end is made with, and what it tells its owner. */

import type { XenStoreClient } from 'xenstore-client';
import type { BlkifAbi } from '../blkif/index.ts';
import type { EventChannelHandle, XenHost } from '../host/index.ts';
import type { Attachment, DetachReason } from './attachment.ts';
import type { Clock } from './clock.ts';
import type { ViewMemory } from './connection.ts';
import type { FrontendError } from './errors.ts';
import type { FrontendLog } from './log.ts';
import type { FrontendTimeouts } from './timeouts.ts';
import type { TransportWish } from './transport-choice.ts';
import type { HolderOf, VbdDescription } from './vbd.ts';

/** How a front end's life ended. */
export interface FrontendEnd {
  readonly reason: 'closed' | 'unplugged' | 'failed';
  /** For `failed`. */
  readonly error: FrontendError | undefined;
  /**
   * Whether the back end is known to be finished with the last connection. If not, its pages stay
   * granted until the process ends, and the next front end has to finish it.
   */
  readonly isBackendFinished: boolean;
}

/**
 * What the owner is told. All are optional; none may throw. They are called one at a time, and
 * after {@link ended} no more.
 */
export interface FrontendEvents {
  /**
   * The back end wants to close, because of the device's removal or for reasons of its own. It
   * still answers: let what is in flight finish, and start nothing new. Resolve then, or when it
   * takes too long; after `drainMs` the front end goes on by itself.
   */
  backendClosing?(isUnplug: boolean): Promise<void> | void;
  /**
   * The connection is over. Resolve when no thread touches the rings and event channels any more;
   * requests without an answer may be sent again on the next connection. Until this resolves, the
   * old ring is kept and no new connection is made.
   */
  detached?(reason: DetachReason): Promise<void> | void;
  /** A new connection stands. The old one is finished: replay is safe. */
  reattached?(attachment: Attachment): void;
  /** The disk has another size, in 512-byte units. */
  resized?(sectors: number): void;
  /**
   * After a restore of the guest: these channels are dead, but their descriptors must never be
   * closed, not even by the end of the process. Give them to somebody who outlives it.
   */
  orphaned?(channels: readonly EventChannelHandle[]): void;
  /** The end. */
  ended?(end: FrontendEnd): void;
}

/** What a front end is made with. */
export interface FrontendOptions {
  readonly host: XenHost;
  /** Stays open as long as the front end lives; closing it is the caller's. */
  readonly store: XenStoreClient;
  readonly vbd: VbdDescription;
  readonly want: TransportWish;
  readonly abi: BlkifAbi;
  readonly viewMemory: ViewMemory;
  readonly events?: FrontendEvents | undefined;
  readonly timeouts?: Partial<FrontendTimeouts> | undefined;
  readonly clock?: Clock | undefined;
  readonly log?: FrontendLog | undefined;
  /** Ends the attempt at the first connection. */
  readonly signal?: AbortSignal | undefined;
  /** Asked before each connection: a vbd that somebody else drives is left alone. */
  readonly holderOf?: HolderOf | undefined;
  /** Whether to wait for an unplugged vbd to come back. Default: yes. */
  readonly isReturnAwaited?: boolean | undefined;
  /** Whether the operator vouches for 512-byte units where back ends differ. Default: no. */
  readonly isSectorUnitTrusted?: boolean | undefined;
}
