/** What a served vbd is made with, and what it tells its owner. */

import type { XenStoreClient } from 'xenstore-client';
import type { LaneEvent, LaneLimits } from '../dataplane/index.ts';
import type { FrontendEnd, HolderOf, VbdDescription } from '../frontend/index.ts';
import type { EventChannelHandle, XenHost } from '../host/index.ts';
import type { ExportWish } from './attachment-shape.ts';
import type { Logger } from './log.ts';
import type { DeviceShare } from './transport-wish.ts';

/** How a vbd is to be used. */
export interface VbdUse {
  /** Undefined for as many as do good. */
  readonly queues: number | undefined;
  /** Undefined for a good one. */
  readonly ringPageOrder: number | undefined;
  /** How long clients wait for a lost backend; Infinity for ever. */
  readonly reconnectTimeoutMs: number;
  /** How long a lane with nothing to do looks for work before it sleeps, while that pays. */
  readonly busyPollUs: number;
  /** Whether clients also wait when the vbd is unplugged. */
  readonly isReturnAwaited: boolean;
  /** Whether the operator vouches for the unit of sector numbers. */
  readonly isSectorUnitTrusted: boolean;
}

export interface DeviceOptions {
  readonly host: XenHost;
  readonly store: XenStoreClient;
  readonly vbd: VbdDescription;
  readonly holderOf: HolderOf;
  readonly wish: ExportWish;
  readonly use: VbdUse;
  readonly limits: LaneLimits;
  /** Connections that there may be at once. */
  readonly connectionsMax: number;
  readonly share: DeviceShare;
  /** What the names of the lanes' threads end in. */
  readonly laneNameSuffix: string;
  /** Memory for the trace of a lane; undefined for no trace. */
  readonly traceLane?: ((vbd: string) => SharedArrayBuffer) | undefined;
  readonly log: Logger;
  /** Gives up the first connection. */
  readonly signal: AbortSignal;
  readonly events: DeviceEvents;
}

export interface DeviceEvents {
  /** A client has left its lane. */
  clientLeft(event: Extract<LaneEvent, { type: 'closed' }>): void;
  /** Event channels whose descriptors must stay open, also when this process ends. */
  orphaned(channels: readonly EventChannelHandle[]): void;
  /** Whether clients wait, or the export, is another now. */
  changed(): void;
  /** The device will serve nobody any more. */
  ended(end: FrontendEnd): void;
  /** A lane died of a fault of this program, or a connection cannot be taken up again. */
  failed(error: Error): void;
}
