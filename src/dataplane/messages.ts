/**
 * What the main thread and a lane say to each other. The lane never returns to its event loop while
 * it works, so a message to it is accompanied by a signal on its control eventfd, and it fetches
 * its messages itself.
 */

import type { ExportInfo } from 'nbd-server-ts/protocol';
import type { CloseReason } from './close-reason.ts';
import type { GuestList } from './guest-rings.ts';
import type { DiskShape, GrantedMemory, LaneRing } from './lane-config.ts';
import type { ReplyForm } from './reply-header.ts';

export type LaneMessage =
  /** A client whose handshake is complete. The lane owns `fd` from now on. */
  | {
      readonly type: 'adopt';
      readonly connectionId: number;
      readonly fd: number;
      readonly info: ExportInfo;
      readonly agreement: ReplyForm;
      /** What the client sent behind its handshake. */
      readonly bytes: Uint8Array;
    }
  /** Finish what is in progress, flush the disk, refuse what is new. Answered by `drained`. */
  | { readonly type: 'drain' }
  /** Ask the backend for nothing more; answered by `quiet` when it has answered everything. */
  | { readonly type: 'hold' }
  /** The ring is lost: touch it no more, let clients wait. Answered by `suspended`. */
  | { readonly type: 'suspend' }
  /**
   * The grants are void: move what the pages hold to private memory, so that they can be given back
   * before new ones are asked for (there may not be enough for both). Answered by `evacuated`.
   */
  | { readonly type: 'evacuate' }
  /**
   * Goes on with a new ring, and asks again what was unanswered; answered by `resumed`. Pools are
   * given after an `evacuate`, with as many pages as before.
   */
  | {
      readonly type: 'resume';
      readonly ring: LaneRing;
      readonly disk: DiskShape;
      readonly pool: GrantedMemory | undefined;
      readonly zeroPool: GrantedMemory | undefined;
      readonly indirectPool: GrantedMemory | undefined;
      /** Lanes that share the ring, if there are any. */
      readonly guests: GuestList | undefined;
    }
  /** The device is gone: answer everything with EIO from now on. */
  | { readonly type: 'break-down' }
  /** Leave the loop now. Answered by the end of the thread. */
  | { readonly type: 'stop' };

/** What a lane tells the main thread. */
export type LaneEvent =
  | { readonly type: 'ready' }
  | { readonly type: 'quiet' }
  | { readonly type: 'suspended' }
  | { readonly type: 'evacuated' }
  | { readonly type: 'resumed' }
  | {
      readonly type: 'closed';
      readonly connectionId: number;
      readonly reason: CloseReason;
      readonly requestCount: number;
    }
  /** Nothing is in progress, no client is left, and the disk was flushed (or could not be). */
  | { readonly type: 'drained'; readonly errno: number }
  /** The backend did something impossible; every request is answered with EIO from now on. */
  | { readonly type: 'broken'; readonly fault: string };
