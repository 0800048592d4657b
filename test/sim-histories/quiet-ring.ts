// A ring whose other end does nothing, with an engine and a lane around it for one test: what is
// asked for stays asked for, so that a test sees what was begun.

import { SIMPLE_AGREEMENT } from 'nbd-server-ts/protocol';
import { BlkifAbi, createRingArea, FrontRing, type RingArea } from '../../src/blkif/index.ts';
import { Counters } from '../../src/dataplane/counters.ts';
import { Engine } from '../../src/dataplane/engine.ts';
import type { DiskShape, LaneLimits, LaneRing } from '../../src/dataplane/lane-config.ts';
import { createSharedContexts, LaneContexts } from '../../src/dataplane/lane-contexts.ts';
import type { LaneCore } from '../../src/dataplane/lane-core.ts';
import { PagePool } from '../../src/dataplane/page-pool.ts';
import { createSharedRanges } from '../../src/dataplane/range-lock.ts';
import { ReceiveBuffers } from '../../src/dataplane/receive-buffers.ts';
import type { ReplyForm } from '../../src/dataplane/reply-header.ts';
import { RingRequests } from '../../src/dataplane/ring-requests.ts';
import { StatusReplies } from '../../src/dataplane/status-reply.ts';
import { allocateMemory, PAGE_SIZE } from '../../src/sys/index.ts';
import { headerArea, sharedIovec } from './lane-setup.ts';

export const SIMPLE: ReplyForm = { ...SIMPLE_AGREEMENT, contexts: [] };
export const DISK: DiskShape = {
  sectorBytes: 512,
  flush: 'flush-cache',
  canFallBackToBarrier: false,
  discard: undefined,
};
const LIMITS: LaneLimits = {
  operationsPerConnection: 8,
  operations: 8,
  bytesPerConnection: 2 ** 40,
  bytes: 2 ** 40,
  ownBytes: 0,
  spillBytes: 0,
};

/** A ring whose pages the test can look at. */
export interface QuietRing {
  readonly config: LaneRing;
  readonly area: RingArea;
  readonly bytes: Buffer;
}

export function createRing(): QuietRing {
  const memory = allocateMemory(PAGE_SIZE);
  const abi = BlkifAbi.X86_64;
  const area = createRingArea({ buffer: memory.buffer, offsetBytes: 0, ringPageCount: 1, abi });
  FrontRing.initialise(area);
  const eventChannel = { port: 0, fd: -1, moduleUrl: '', detail: {} };
  const { address } = memory;
  return {
    config: { address, pageCount: 1, abi, handle: 1, eventChannel, maxSegments: 11 },
    area,
    bytes: Buffer.from(memory.buffer),
  };
}

function noContexts(): LaneContexts {
  return new LaneContexts(createSharedContexts(1 << 20));
}

/** An engine with eight operations. */
export function createEngine(
  config: LaneRing,
  bytesMax?: number,
): { readonly engine: Engine; readonly ring: RingRequests } {
  const pages = allocateMemory(32 * PAGE_SIZE);
  const pool = new PagePool({ address: pages.address, grefs: new Uint32Array(24) });
  const zeroPool = new PagePool({
    address: pages.address + 24 * PAGE_SIZE,
    grefs: new Uint32Array(8),
  });
  const ring = new RingRequests(config, DISK, { pool, zeroPool, indirectPool: undefined });
  const engine = new Engine(
    {
      disk: DISK,
      ranges: createSharedRanges(1, 8),
      laneIndex: 0,
      spillLimitBytes: 1 << 20,
      ...(bytesMax !== undefined && { bytesMax }),
    },
    { ring, pool, zeroPool, counters: new Counters(), contexts: noContexts() },
  );
  return { engine, ring };
}

/** A lane around an engine, in which nothing happens by itself. */
export function createCore(
  engine: Engine,
  part: Partial<LaneCore> & Pick<LaneCore, 'takeOperation'>,
): LaneCore {
  return {
    engine,
    pool: new PagePool({ address: allocateMemory(PAGE_SIZE).address, grefs: new Uint32Array(1) }),
    buffers: new ReceiveBuffers(4096),
    iovec: sharedIovec,
    headers: headerArea(0),
    statusReplies: new StatusReplies(noContexts()),
    limits: LIMITS,
    counters: new Counters(),
    nowUs: 0,
    isDraining: false,
    markDirty: () => undefined,
    markAwake: () => undefined,
    stopWaiting: () => undefined,
    release: () => undefined,
    abandonAll: () => undefined,
    watch: () => undefined,
    connectionClosed: () => undefined,
    ...part,
  };
}
