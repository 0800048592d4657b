/**
 * The vocabulary between the main thread and a back end's worker thread: plain data only. A command
 * is posted to the worker's port and then its eventfd is signalled, since a thread in epoll_wait
 * hears of no messages.
 */

import type { BlkifAbi } from '../blkif/index.ts';
import type { EventChannelHandle } from '../host/index.ts';
import type { EngineFeatures, EngineStats } from './blkback-engine.ts';
import type { GrantMapPlacement } from './grant-map.ts';
import type { StopMode } from './queue-runner.ts';

/** What a worker is started with. */
export interface WorkerSetup {
  readonly port: import('node:worker_threads').MessagePort;
  /** Signalled after each command. */
  readonly commandFd: number;
  readonly threadName: string;
}

/** Serve a ring. Answered when it is being served. */
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
  readonly seed: number;
}

/** Stop serving a ring. Answered when nothing of it is mapped any more. */
export interface DetachQueue {
  readonly kind: 'detach';
  readonly queueId: number;
  readonly mode: StopMode;
}

/** A disk is there, or has another size. Answered when requests are checked against it. */
export interface SetDisk {
  readonly kind: 'disk';
  readonly diskId: number;
  readonly fd: number;
  readonly sectors: number;
}

/** Behave like this from now on, on all rings of the worker. */
export interface SetFaults {
  readonly kind: 'faults';
  readonly errorRate: number;
  readonly delayMs: number;
}

export interface ReadStats {
  readonly kind: 'stats';
}

/** End the thread. Every ring must be detached. */
export interface StopWorker {
  readonly kind: 'stop';
}

export type WorkerCommand =
  | AttachQueue
  | DetachQueue
  | SetDisk
  | SetFaults
  | ReadStats
  | StopWorker;

export interface NumberedCommand {
  readonly sequence: number;
  readonly command: WorkerCommand;
}

/** What the worker says. */
export type WorkerReport =
  | { readonly kind: 'done'; readonly sequence: number; readonly stats?: EngineStats }
  | { readonly kind: 'failed'; readonly sequence: number; readonly message: string }
  /** The front end's producer index cannot be true; the ring is not served any more. */
  | { readonly kind: 'broken'; readonly queueId: number };
