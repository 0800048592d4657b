/**
 * What a set of rings can be told, as plain data that may cross threads, and what a worker thread
 * answers. A command is posted to the worker's port and then its eventfd is signalled, since a
 * thread in epoll_wait hears of no messages.
 */

import type { MessagePort } from 'node:worker_threads';
import type { BlkifAbi } from '../blkif/index.ts';
import type { EventChannelHandle } from '../host/index.ts';
import type { EngineFeatures, EngineStats } from './blkback-engine.ts';
import type { GrantMapPlacement } from './grant-map.ts';
import type { Hostility } from './hostile-answers.ts';
import type { StopMode } from './queue-runner.ts';

/** Serve a ring. Done when it is being served. */
export interface AttachQueue {
  readonly kind: 'attach';
  readonly queueId: number;
  readonly diskId: number;
  readonly ring: { readonly address: number; readonly pageCount: number; readonly abi: BlkifAbi };
  readonly channel: EventChannelHandle;
  readonly grants: GrantMapPlacement;
  /** The domain that the back end runs in. */
  readonly domid: number;
  readonly features: EngineFeatures;
  /** Decides delays, errors and lies. */
  readonly seed: number;
  /** Undefined for a back end that tells the truth. */
  readonly hostility?: Hostility | undefined;
}

/** Stop serving a ring. Done when nothing of it is mapped any more. */
export interface DetachQueue {
  readonly kind: 'detach';
  readonly queueId: number;
  readonly mode: StopMode;
}

/** A disk is there, or has another size. Done when requests are checked against it. */
export interface SetDisk {
  readonly kind: 'disk';
  readonly diskId: number;
  readonly fd: number;
  readonly sectors: number;
  /** It has a cache that a power failure empties. */
  readonly isVolatile: boolean;
}

/** The power of a disk fails. None of its rings may be attached. */
export interface LosePower {
  readonly kind: 'lose-power';
  readonly diskId: number;
  readonly seed: number;
}

/** Behave like this from now on, on all rings. */
export interface SetFaults {
  readonly kind: 'faults';
  readonly errorRate: number;
  readonly delayMs: number;
}

export type WorkerCommand = AttachQueue | DetachQueue | SetDisk | LosePower | SetFaults;

/** What a worker is started with. */
export interface WorkerSetup {
  readonly port: MessagePort;
  /** Signalled after each message. */
  readonly wakeFd: number;
  readonly threadName: string;
  /** How long it looks for requests before it sleeps, while that pays. */
  readonly busyPollUs: number;
}

/** What a worker is sent: a command, the wish for its counts, or that it end. */
export interface WorkerMessage {
  readonly sequence: number;
  readonly body: WorkerCommand | { readonly kind: 'stats' } | { readonly kind: 'stop' };
}

/** What a worker says. */
export type WorkerReport =
  | { readonly kind: 'done'; readonly sequence: number; readonly stats?: EngineStats }
  | { readonly kind: 'failed'; readonly sequence: number; readonly message: string }
  /** The front end's producer index cannot be true; the ring is not served any more. */
  | { readonly kind: 'broken'; readonly queueId: number };
