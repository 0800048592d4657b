import type { Transport } from 'xenstore-client';
import type { EventChannelHandle } from './event-channel.ts';

/** What the other domain may do with a granted page. */
export type GrantAccess = 'read-only' | 'read-write';

/** Pages of ours that one other domain may map. They arrive zeroed and hold nothing else. */
export interface GrantedPages {
  /** Address of the first page in this process; the pages follow each other, 4096 bytes each. */
  readonly address: number;
  readonly pageCount: number;
  /** One grant reference for each page, in order. */
  readonly grefs: Uint32Array;
  /**
   * Ends the grant and unmaps the pages. The caller promises that no thread touches them again and
   * that the backend has finished with them. Must not be called twice.
   */
  revoke(): void;
  /**
   * Ends the grant as {@link revoke} does, but leaves memory at the address: private to this
   * process, with the bytes that the pages held. For pages of which somebody may still have a view.
   */
  retire(): void;
}

/** A vbd that this process, and no other, may drive. */
export interface VbdClaim {
  /** Ends it; the end of the process does so as well. Must not be called twice. */
  release(): void;
}

/** How many pages may be granted, over the whole guest. */
export interface GrantBudget {
  /** The limit in pages; for real Xen /sys/module/xen_gntalloc/parameters/limit. */
  readonly limitPages: number;
  /** Where the limit is set, for messages. */
  readonly source: string;
}

/**
 * What a frontend needs of Xen: grants, event channels and a way to XenStore. Two implementations:
 * the real one on /dev/xen (src/xen) and the simulated one (src/sim). Everything above this
 * interface cannot tell which it has.
 *
 * All methods throw or reject with {@link HostError}.
 */
export interface XenHost {
  /** For messages: `/dev/xen` or `simulated Xen host`. */
  readonly name: string;
  /** Opens a new connection to XenStore, speaking its wire protocol. */
  openXenStore(): Promise<Transport>;
  /** Grants `pageCount` fresh zeroed pages to `domid`. Code `LIMIT` when the budget is used up. */
  grantPages(domid: number, pageCount: number, access: GrantAccess): GrantedPages;
  grantBudget(): GrantBudget;
  /** Allocates an unbound port that `domid` may bind to, each on a descriptor of its own. */
  bindEventChannel(domid: number): EventChannelHandle;
  /** Ends a channel. The lane that used it must have stopped. */
  unbindEventChannel(handle: EventChannelHandle): void;
  /**
   * Forgets a channel of before a restore of this guest without closing its descriptor, which must
   * stay open for ever. {@link close} does not close it either.
   */
  disownEventChannel(handle: EventChannelHandle): void;
  /** Claims a vbd for the caller; undefined while another claim stands, in whichever process. */
  claimVbd(vbdId: number): VbdClaim | undefined;
  /** Who has claimed a vbd, in words for people; undefined when nobody has. */
  vbdClaimant(vbdId: number): string | undefined;
  /** Releases everything that is still held. */
  close(): Promise<void>;
}
