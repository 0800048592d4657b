/**
 * Serves rings as the simulated back end's thread does, with the same engine and runner, but one
 * event of the scheduler at a time. What a crashed back end was given is still executed at its
 * time, on the disk of this history.
 */

import { BackRing, BlkifOp, blkifLayout, createRingArea } from '../../src/blkif/index.ts';
import type { EventChannelHandle } from '../../src/host/index.ts';
import {
  BlkbackEngine,
  createEngineStats,
  type EngineParts,
  type EngineStats,
  type Job,
} from '../../src/sim/blkback-engine.ts';
import { MASKED, openEventChannel, PENDING, UNBOUND } from '../../src/sim/event-channel.ts';
import { SeededRandom } from '../../src/sim/faults.ts';
import { GrantMap } from '../../src/sim/grant-map.ts';
import { IovecList } from '../../src/sim/iovec-list.ts';
import { QueueRunner, type RunnerFaults, type StopMode } from '../../src/sim/queue-runner.ts';
import type { RingService } from '../../src/sim/ring-service.ts';
import { PAGE_SIZE, viewMemory } from '../../src/sys/index.ts';
import type { CachedDisk } from './cached-disk.ts';
import { Liar } from './liar.ts';
import type { Scheduler } from './scheduler.ts';

type AttachedRing = Parameters<RingService['attach']>[0];

/** One for all histories: its memory is never given back. */
const iovecs = new IovecList();
const SECTOR = 512;

/** The back end's engine, which tells the disk what is answered and what a flush covers. */
class RecordingEngine extends BlkbackEngine {
  readonly #disk: CachedDisk;
  readonly liar: Liar;
  /** For each flush in progress, how much was answered when it was taken. */
  readonly #flushes = new Map<Job, number>();
  /** Ids of requests that were taken and not answered. */
  readonly #taken = new Set<number>();
  readonly #idOffset: number;

  constructor(parts: EngineParts, disk: CachedDisk, liar: Liar) {
    super(parts);
    this.#disk = disk;
    this.#idOffset = parts.layout.id;
    this.liar = liar;
  }

  override takeInto(job: Job): boolean {
    if (this.liar.hasLied || !super.takeInto(job)) return false;
    this.#taken.add(job.idLow);
    if (isFlush(job)) this.#flushes.set(job, this.#disk.answers);
    return true;
  }

  override publish(): boolean {
    // An honest index would take the lie back.
    return this.liar.isIndexBent ? false : super.publish();
  }

  override execute(job: Job): void {
    super.execute(job);
    if (isFlush(job) && job.status === 0) this.#disk.flushUpTo(this.#flushes.get(job) ?? 0);
  }

  override answer(job: Job): void {
    if (this.liar.hasLied) {
      this.abandon(job);
      return;
    }
    if (job.status === 0) this.#record(job);
    this.liar.bend(job, () => this.#idleId());
    this.#taken.delete(job.idLow);
    super.answer(job);
  }

  /** The id of a request that is not in flight, or of none at all when all are. */
  #idleId(): number {
    const { ring } = this;
    const busy = new Set(this.#taken);
    for (let at = 0; at < ring.pendingRequests(); at++) {
      busy.add(ring.view.getUint32(ring.requestOffset(at) + this.#idOffset, true));
    }
    let id = 0;
    while (busy.has(id)) id += 1;
    return id;
  }

  #record(job: Job): void {
    const offset = job.request.firstSector * SECTOR;
    if (job.operation === BlkifOp.BLKIF_OP_WRITE) {
      this.#disk.answered(offset, job.sectorCount * SECTOR);
    } else if (job.operation === BlkifOp.BLKIF_OP_DISCARD) {
      this.#disk.answered(offset, job.request.discardSectorCount * SECTOR);
    }
  }
}

function isFlush(job: Job): boolean {
  return (
    job.operation === BlkifOp.BLKIF_OP_FLUSH_DISKCACHE ||
    job.operation === BlkifOp.BLKIF_OP_WRITE_BARRIER
  );
}

/** Whether an event waits for the owner of a channel's end, given the end's state word. */
export function isSignalled(state: Int32Array): boolean {
  return (Atomics.load(state, 0) & (PENDING | MASKED | UNBOUND)) === PENDING;
}

/** The state word of the end that a handle stands for. */
export function stateOf(handle: EventChannelHandle): Int32Array {
  return new Int32Array(viewMemory(handle.detail['stateAddress'] ?? 0, 4));
}

interface ServedQueue {
  readonly queueId: number;
  readonly runner: QueueRunner;
  readonly engine: RecordingEngine;
  readonly state: Int32Array;
  readonly channel: EventChannelHandle;
  readonly attachedAtMs: number;
  isWoken: boolean;
  dueAtMs: number;
  whenStopped: (() => void) | undefined;
}

export interface SteppedRingsOptions {
  readonly scheduler: Scheduler;
  readonly disk: CachedDisk;
  readonly faults: RunnerFaults;
  /** The back end announces flushes and then does not take them. */
  readonly refusesFlushes: boolean;
  /** Called after a ring was served: the other end may have to wake. */
  readonly served: () => void;
}

export class SteppedRings implements RingService {
  onBroken: ((queueId: number) => void) | undefined;
  readonly #stats: EngineStats = createEngineStats();
  readonly #options: SteppedRingsOptions;
  readonly #queues = new Map<number, ServedQueue>();
  /** By the domain that maps. */
  readonly #grantMaps = new Map<number, GrantMap>();

  constructor(options: SteppedRingsOptions) {
    this.#options = options;
  }

  // --- RingService

  setDisk(_diskId: number, _fd: number, sectors: number): Promise<void> {
    this.#options.disk.sectors = sectors;
    return Promise.resolve();
  }

  attach(queue: AttachedRing): Promise<void> {
    const { scheduler, disk, faults, refusesFlushes } = this.#options;
    const { ring, queueId } = queue;
    const area = createRingArea({
      buffer: viewMemory(ring.address, ring.pageCount * PAGE_SIZE),
      offsetBytes: 0,
      ringPageCount: ring.pageCount,
      abi: ring.abi,
    });
    const features = refusesFlushes ? { ...queue.features, flush: false } : queue.features;
    const parts: EngineParts = {
      ring: BackRing.attach(area),
      layout: blkifLayout(ring.abi),
      grants: this.#grantMap(queue),
      disk,
      features,
      iovecs,
      stats: this.#stats,
    };
    const engine = new RecordingEngine(parts, disk, new Liar(area));
    const random = new SeededRandom(scheduler.random.u32());
    const runner = new QueueRunner(engine, openEventChannel(queue.channel), faults, random);
    runner.onBroken = () => this.onBroken?.(queueId);
    const served: ServedQueue = {
      queueId,
      runner,
      engine,
      state: stateOf(queue.channel),
      channel: queue.channel,
      attachedAtMs: scheduler.nowMs(),
      isWoken: false,
      dueAtMs: Number.POSITIVE_INFINITY,
      whenStopped: undefined,
    };
    this.#queues.set(queueId, served);
    scheduler.trace('blkback', `serves ring ${queueId}`);
    this.poke();
    return Promise.resolve();
  }

  detach(queueId: number, mode: StopMode): Promise<void> {
    const queue = this.#queues.get(queueId);
    if (queue === undefined) return Promise.resolve();
    const { scheduler } = this.#options;
    scheduler.trace('blkback', `stops ring ${queueId}: ${mode}, ${queue.runner.heldCount} held`);
    queue.runner.stop(mode);
    return new Promise((resolve) => {
      queue.whenStopped = resolve;
      scheduler.soon(() => this.#settle(queue));
    });
  }

  setFaults(faults: RunnerFaults): Promise<void> {
    Object.assign(this.#options.faults, faults);
    return Promise.resolve();
  }

  stats(): Promise<EngineStats> {
    return Promise.resolve({ ...this.#stats });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #grantMap({ domid, grants }: AttachedRing): GrantMap {
    let map = this.#grantMaps.get(domid);
    if (map === undefined) {
      map = new GrantMap(grants, domid);
      this.#grantMaps.set(domid, map);
    }
    return map;
  }

  // --- for the history

  /**
   * Rings other than those of these front ends' channels, whose requests may be executed yet. The
   * place of a closed channel is used again, so its age tells as well.
   */
  othersThan(channels: readonly EventChannelHandle[], boundAtMs: number): number[] {
    const own = channels.map(({ detail }) => detail['stateAddress']);
    return [...this.#queues.values()]
      .filter(({ channel, attachedAtMs }) => {
        return attachedAtMs < boundAtMs || !own.includes(channel.detail['peerStateAddress']);
      })
      .map(({ queueId }) => queueId);
  }

  /** The liars of the rings that are served. */
  liars(): Liar[] {
    return [...this.#queues.values()].map(({ engine }) => engine.liar);
  }

  /** Shows what lies published, and rings. */
  publishLies(): void {
    for (const { engine, runner } of this.#queues.values()) {
      if (engine.liar.hasLied) runner.channel.notify();
    }
    this.#options.served();
  }

  /** Wakes the runners whose channels have an event. */
  poke(): void {
    for (const queue of this.#queues.values()) {
      if (queue.isWoken || !isSignalled(queue.state)) continue;
      queue.isWoken = true;
      this.#options.scheduler.soon(() => this.#run(queue));
    }
  }

  #run(queue: ServedQueue): void {
    queue.isWoken = false;
    if (!this.#queues.has(queue.queueId)) return;
    const { scheduler } = this.#options;
    if (queue.runner.run(scheduler.nowMs())) {
      queue.isWoken = true;
      scheduler.soon(() => this.#run(queue));
    }
    this.#ran(queue);
  }

  #runDue(queue: ServedQueue): void {
    queue.dueAtMs = Number.POSITIVE_INFINITY;
    queue.runner.runDue(this.#options.scheduler.nowMs());
    this.#ran(queue);
    this.#settle(queue);
  }

  #ran(queue: ServedQueue): void {
    const { scheduler, served } = this.#options;
    const nextMs = queue.runner.nextDueMs;
    if (nextMs < queue.dueAtMs) {
      queue.dueAtMs = nextMs;
      scheduler.after(Math.max(0, nextMs - scheduler.nowMs()), () => this.#runDue(queue));
    }
    served();
    this.poke();
  }

  /** The end of a ring that was told to stop, once nothing of it is left to be done. */
  #settle(queue: ServedQueue): void {
    if (queue.whenStopped === undefined || !queue.runner.isStopped) return;
    this.#options.scheduler.touch();
    queue.engine.releaseKept();
    this.#queues.delete(queue.queueId);
    this.#options.scheduler.trace('blkback', `finished ring ${queue.queueId}`);
    queue.whenStopped();
    queue.whenStopped = undefined;
  }
}
