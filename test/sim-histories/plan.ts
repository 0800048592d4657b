/**
 * What a history is made of, drawn from its seed before anything happens: the disk and its back
 * end, the lanes, the clients, and the troubles to come.
 */

import type { ReplyForm } from '../../src/dataplane/reply-header.ts';
import type { SimulatedFeatures } from '../../src/sim/features.ts';
import type { SeededRandom } from '../support/random.ts';
import type { ClientPlan } from './client-world.ts';
import { TROUBLE_NAMES, type TroubleName } from './trouble-names.ts';

export interface HistoryPlan {
  readonly sizeBytes: number;
  /** What the disk may grow to. */
  readonly maxBytes: number;
  readonly features: SimulatedFeatures;
  /** A flush is announced, and answered with EOPNOTSUPP. */
  readonly refusesFlushes: boolean;
  readonly errorRate: number;
  /** Requests are executed, and answered, up to this late. */
  readonly delayMs: number;
  readonly tempoMs: number;
  readonly queues: number;
  readonly ringPageOrder: number;
  readonly maxIndirectSegments: number;
  readonly poolPages: number;
  readonly zeroPages: number;
  readonly indirectPages: number;
  readonly operations: number;
  readonly operationsPerConnection: number;
  readonly sharedOperations: number;
  readonly bytesPerConnection: number;
  readonly bytes: number;
  readonly ownBytes: number;
  readonly spillBytes: number;
  readonly receiveBufferBytes: number;
  readonly hotSpots: readonly number[];
  readonly clients: readonly ClientPlan[];
  /** What goes wrong, with the pauses before. */
  readonly troubles: readonly { readonly name: TroubleName; readonly pauseMs: number }[];
  /** Whether clients wait for a vbd that was unplugged. */
  readonly isReturnAwaited: boolean;
}

/** What a caller fixes of a plan. */
export interface PlanWish {
  /** Only troubles with these names. */
  readonly troubles?: readonly TroubleName[] | undefined;
  /** Parts of the plan that are not drawn. */
  readonly fixed?: Partial<HistoryPlan> | undefined;
}

const KIB = 1024;

/**
 * Troubles that make the device anew. Not in one history with a Closed that was written by hand:
 * src/frontend/README.md says what cannot be known then.
 */
const MAKES_ANEW: readonly TroubleName[] = [
  'backend-gone',
  'backend-gone-late',
  'crash-late',
  'move-backend',
];

export function drawPlan(random: SeededRandom, wish: PlanWish = {}): HistoryPlan {
  const sizeBytes = random.pick([64, 128, 256]) * KIB;
  const hasVolatileCache = random.chance(0.85);
  const flush = hasVolatileCache && random.chance(0.8);
  const hasBarrier = hasVolatileCache && (!flush || random.chance(0.4));
  const queues = random.pick([1, 1, 2, 3]);
  const maxIndirectSegments = random.pick([0, 0, 16, 40]);
  const tempoMs = random.pick([0.005, 0.02, 0.1]);
  const spots = 1 + random.below(3);
  return {
    sizeBytes,
    maxBytes: sizeBytes * 2,
    features: {
      ringPageOrder: random.below(2),
      queues,
      indirect: maxIndirectSegments === 0 ? 0 : random.pick([12, 64]),
      persistent: random.chance(0.5),
      flush,
      barrier: hasBarrier,
      discard: random.chance(0.7),
      sectorSize: random.pick([512, 512, 4096]),
      readOnly: false,
    },
    refusesFlushes: flush && hasBarrier && random.chance(0.2),
    errorRate: random.chance(0.12) ? 0.05 : 0,
    delayMs: random.pick([0, 0.05, 0.5, 5, 60]),
    tempoMs,
    queues,
    ringPageOrder: random.below(2),
    maxIndirectSegments,
    poolPages: random.pick([24, 32, 64]),
    zeroPages: random.pick([2, 8]),
    indirectPages: random.pick([2, 8]),
    operations: random.pick([6, 16, 32]),
    operationsPerConnection: random.pick([2, 8, 16]),
    sharedOperations: random.pick([1, 8, 32]),
    bytesPerConnection: random.pick([4, 64, 1024]) * KIB,
    bytes: random.pick([16, 256, 4096]) * KIB,
    ownBytes: random.pick([0, 4]) * KIB,
    spillBytes: random.pick([64 * KIB, 1024 * KIB]),
    receiveBufferBytes: random.pick([4, 32, 256]) * KIB,
    hotSpots: Array.from({ length: spots }, () => random.below(sizeBytes)),
    clients: Array.from({ length: 1 + random.below(5) }, () => drawClient(random, tempoMs)),
    troubles: drawTroubles(random, wish),
    isReturnAwaited: random.chance(0.85),
    ...wish.fixed,
  };
}

function drawClient(random: SeededRandom, tempoMs: number): ClientPlan {
  const style = random.below(3);
  const agreement: ReplyForm = {
    isStructured: style > 0,
    isExtended: style === 2,
    hasMetaContexts: style > 0,
    contexts: style > 0 ? [{ id: 7, name: 'base:allocation' }] : [],
  };
  return {
    requests: 10 + random.below(50),
    maxInFlight: random.pick([1, 4, 16]),
    pauseMs: tempoMs * random.pick([1, 10, 60]),
    isChoppy: random.chance(0.4),
    isSlowReader: random.chance(0.2),
    leaveRate: random.chance(0.2) ? 0.05 : 0,
    agreement,
  };
}

function drawTroubles(random: SeededRandom, wish: PlanWish): HistoryPlan['troubles'] {
  const names = wish.troubles ?? TROUBLE_NAMES;
  const count = random.pick([0, 1, 1, 2, 2, 3, 4]);
  const longestMs = random.pick([1, 5, 200]);
  const length = wish.troubles === undefined ? count : Math.max(1, count);
  const troubles = Array.from({ length }, () => ({
    name: random.pick(names),
    pauseMs: random.below(1000) * 0.001 * longestMs,
  }));
  const isForged = troubles.some(({ name }) => name === 'force-closed');
  return isForged ? troubles.filter(({ name }) => !MAKES_ANEW.includes(name)) : troubles;
}
