// The engine of a lane on a ring that starts near 2^32, and a backend in the same thread.
import { BlkifAbi, createRingArea, FrontRing } from '../../src/blkif/index.ts';
import { Counters } from '../../src/dataplane/counters.ts';
import { Engine } from '../../src/dataplane/engine.ts';
import type { DiskShape, LaneRing } from '../../src/dataplane/lane-config.ts';
import { LaneContexts } from '../../src/dataplane/lane-contexts.ts';
import { PagePool } from '../../src/dataplane/page-pool.ts';
import { createSharedRanges } from '../../src/dataplane/range-lock.ts';
import { RingRequests } from '../../src/dataplane/ring-requests.ts';
import { createZeroMap } from '../../src/dataplane/zero-map.ts';
import { allocateMemory, PAGE_SIZE } from '../../src/sys/index.ts';
import { ModelBackend } from '../support/model-backend.ts';
import { SeededRandom } from '../support/random.ts';

/** What an engine under test works with. */
export interface EngineSetup {
  readonly seed: number;
  readonly poolPages: number;
  readonly ringPages: number;
  readonly maxSegments: number;
  readonly sectorBytes: number;
  readonly sizeBytes: number;
}

/** What {@link createEngine} makes. */
export interface EngineWorld {
  readonly random: SeededRandom;
  readonly engine: Engine;
  readonly ring: RingRequests;
  readonly laneRing: LaneRing;
  readonly disk: DiskShape;
  readonly backend: ModelBackend;
  readonly pool: PagePool;
  /** All granted pages; a grant reference is the number of the page. */
  readonly pages: { readonly address: number };
  readonly contexts: LaneContexts;
  readonly counters: Counters;
}

const ABI = BlkifAbi.X86_64;

/** A new ring, as the handshake leaves it. */
export function createLaneRing({ ringPages, maxSegments }: EngineSetup): LaneRing {
  const { address, buffer } = allocateMemory(ringPages * PAGE_SIZE);
  FrontRing.initialise(
    createRingArea({ buffer, offsetBytes: 0, ringPageCount: ringPages, abi: ABI }),
    0xffff_fff0,
  );
  return {
    address,
    pageCount: ringPages,
    abi: ABI,
    handle: 51728,
    eventChannel: { port: 0, fd: -1, moduleUrl: '', detail: {} },
    maxSegments,
  };
}

/** An engine and its ring, with a backend on the other end that is stepped by hand. */
export function createEngine(setup: EngineSetup): EngineWorld {
  const random = new SeededRandom(setup.seed);
  const laneRing = createLaneRing(setup);
  const disk: DiskShape = {
    sectorBytes: setup.sectorBytes,
    flush: 'flush-cache',
    canFallBackToBarrier: false,
    discard: { granularityBytes: 4096, alignmentBytes: 0 },
  };
  const pages = allocateMemory((setup.poolPages + 32 + 16) * PAGE_SIZE);
  const region = (first: number, count: number) => ({
    address: pages.address + first * PAGE_SIZE,
    grefs: Uint32Array.from({ length: count }, (_, i) => first + i),
  });
  const pool = new PagePool(region(0, setup.poolPages));
  const zeroPool = new PagePool(region(setup.poolPages, 16));
  const indirectPool =
    setup.maxSegments > 11 ? new PagePool(region(setup.poolPages + 16, 16)) : undefined;
  const ring = new RingRequests(laneRing, disk, { pool, zeroPool, indirectPool });
  const contexts = new LaneContexts([createZeroMap(setup.sizeBytes, 4096)]);
  const counters = new Counters();
  const engine = new Engine(
    { disk, ranges: createSharedRanges(1, 64), laneIndex: 0, spillLimitBytes: 1 << 20 },
    {
      ring,
      pool,
      zeroPool,
      counters,
      contexts,
    },
  );
  const backend = new ModelBackend(
    { ringAddress: laneRing.address, ringPageCount: setup.ringPages, abi: ABI },
    pages.address,
    setup.sizeBytes,
    random,
  );
  return { random, engine, ring, laneRing, disk, backend, pool, pages, contexts, counters };
}
