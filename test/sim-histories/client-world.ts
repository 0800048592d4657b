/** What a client of a history is told, and what it needs of the history. */

import type { ReplyForm } from '../../src/dataplane/reply-header.ts';
import type { DiskModel } from './disk-model.ts';
import type { NbdRequester } from './nbd-requester.ts';
import type { Scheduler } from './scheduler.ts';

/** How a client behaves. */
export interface ClientPlan {
  readonly requests: number;
  readonly maxInFlight: number;
  /** Between two requests, on average. */
  readonly pauseMs: number;
  /** Whether its bytes come in small pieces. */
  readonly isChoppy: boolean;
  /** Whether it takes replies slowly. */
  readonly isSlowReader: boolean;
  /** Chance to leave instead of sending the next request. */
  readonly leaveRate: number;
  readonly agreement: ReplyForm;
}

/** What a client needs of its history. */
export interface ClientWorld {
  readonly scheduler: Scheduler;
  readonly model: DiskModel;
  /** Where requests like to go, in bytes. */
  readonly hotSpots: readonly number[];
  readonly trimGranularityBytes: number | undefined;
  /** Told of what must not be. */
  report(what: string): void;
  /** Whether an error is a truthful answer now. */
  mayAnswer(client: NbdRequester, errno: number): boolean;
  /** Whether data can be believed: not after a lie. */
  readonly isDataTrusted: boolean;
  /** The lane has something to look at. */
  pokeLanes(): void;
  left(client: NbdRequester): void;
}
