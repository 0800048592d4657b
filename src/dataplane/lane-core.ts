import type { Memory } from '../sys/index.ts';
import type { CloseReason } from './close-reason.ts';
import type { Counters } from './counters.ts';
import type { Engine } from './engine.ts';
import type { Iovec } from './iovec.ts';
import type { LaneLimits } from './lane-config.ts';
import type { NbdConnection } from './nbd-connection.ts';
import type { Operation } from './operation.ts';
import type { PagePool } from './page-pool.ts';
import type { ReceiveBuffers } from './receive-buffers.ts';
import type { StatusReplies } from './status-reply.ts';
import type { TraceRing } from './trace-ring.ts';

/** What a connection uses of the lane it lives in. */
export interface LaneCore {
  readonly engine: Engine;
  readonly pool: PagePool;
  readonly buffers: ReceiveBuffers;
  /** Scratch: filled in and used within one call. */
  readonly iovec: Iovec;
  /** Reply headers, one place for each operation. */
  readonly headers: Memory & { readonly view: DataView };
  readonly statusReplies: StatusReplies;
  readonly limits: LaneLimits;
  readonly counters: Counters;
  /** When this turn began: microseconds as a signed 32-bit number, which wraps. */
  readonly nowUs: number;
  /** Told of each reply, when somebody wants to know. */
  readonly trace?: TraceRing | undefined;
  /** The server stops: new requests are refused. */
  readonly isDraining: boolean;

  /** `connection` has replies to send at the end of this turn. */
  markDirty(connection: NbdConnection): void;
  /** `connection` can go on parsing in this turn. */
  markAwake(connection: NbdConnection): void;
  /**
   * An operation for a request of `connection` that counts as `lengthBytes` in the lane; undefined
   * when there is no room for it. It is woken when there is. `isOwn`: it has no other in progress.
   */
  takeOperation(
    connection: NbdConnection,
    lengthBytes: number,
    isOwn: boolean,
  ): Operation | undefined;
  /** `connection` does not want the operation any more that it waits for. */
  stopWaiting(connection: NbdConnection): void;
  /** The reply of `operation` has left, or its client has. */
  release(operation: Operation): void;
  /** The operations of `connection` lose their client. */
  abandonAll(connection: NbdConnection): void;
  watch(connection: NbdConnection, events: number): void;
  connectionClosed(connection: NbdConnection, reason: CloseReason): void;
}
