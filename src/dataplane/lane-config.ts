/**
 * What a lane is told when it starts: plain data, because it crosses to a worker thread. Memory is
 * named by address and descriptors by number; both are shared by all threads of the process.
 */

import type { BlkifAbi } from '../blkif/index.ts';
import type { EventChannelHandle } from '../host/index.ts';
import type { SharedContexts } from './lane-contexts.ts';
import type { SharedRanges } from './range-lock.ts';

/** What a connection receives into, while it has bytes that were not dealt with. */
export const RECEIVE_BUFFER_BYTES: number = 256 * 1024;
/** What a Unix socket is asked to take before its reader has taken anything. */
export const SEND_BUFFER_BYTES: number = 1024 * 1024;

/** How the disk behind the ring behaves. Lengths are bytes. */
export interface DiskShape {
  /** What requests on the ring must be aligned to: 512 to 4096. */
  readonly sectorBytes: number;
  /** How writes are made stable: an operation of the ring, or nothing when none is needed. */
  readonly flush: 'flush-cache' | 'barrier' | 'none';
  /** Barriers are offered as well, should the flush turn out not to work. */
  readonly canFallBackToBarrier: boolean;
  readonly discard:
    | { readonly granularityBytes: number; readonly alignmentBytes: number }
    | undefined;
}

/** Granted pages, by address. */
export interface GrantedMemory {
  readonly address: number;
  readonly grefs: Uint32Array;
}

/** A ring, and how to make requests on it. */
export interface LaneRing {
  /** Address of the ring's pages, whose header is initialised and on which nothing was sent. */
  readonly address: number;
  readonly pageCount: number;
  readonly abi: BlkifAbi;
  /** The vbd's number, which goes into each request. */
  readonly handle: number;
  readonly eventChannel: EventChannelHandle;
  /** Most segments of one request; above 11 they are indirect. */
  readonly maxSegments: number;
}

/** What a lane allows its clients. */
export interface LaneLimits {
  /** NBD requests of one connection in progress at once. */
  readonly operationsPerConnection: number;
  /** The same of all connections together, beyond the first of each. */
  readonly operations: number;
  /** Bytes of its reads and writes in progress; a larger request goes by itself. */
  readonly bytesPerConnection: number;
  /** The same of all connections of the lane together. */
  readonly bytes: number;
  /** As much of each connection is in progress whatever the others do, and not part of `bytes`. */
  readonly ownBytes: number;
  /** Memory for reads that do not fit the page pool. */
  readonly spillBytes: number;
}

/** All that a lane is told when it starts. */
export interface LaneConfig {
  /** Number of the lane among those of its disk. */
  readonly index: number;
  /** Of the thread, also in /proc, where 15 bytes of it are seen. */
  readonly name: string;
  readonly disk: DiskShape;
  readonly ring: LaneRing;
  readonly pool: GrantedMemory;
  /** Pages that stay zero. */
  readonly zeroPool: GrantedMemory;
  /** Pages for the segment lists of indirect requests; none when there are no such requests. */
  readonly indirectPool: GrantedMemory | undefined;
  readonly limits: LaneLimits;
  /** How long the lane looks for work before it sleeps, while that pays; 0 for never. */
  readonly busyPollUs: number;
  /** The table of writes in progress that the lanes of the disk share. */
  readonly ranges: SharedRanges;
  /** What is known of the disk for BLOCK_STATUS, which they share as well. */
  readonly contexts: SharedContexts;
  /** Where each reply is told of, for `--trace`. */
  readonly trace?: SharedArrayBuffer | undefined;
  /** An eventfd that is signalled when a message waits for the lane. */
  readonly controlFd: number;
  readonly counters: SharedArrayBuffer;
}
