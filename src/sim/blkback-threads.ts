import { availableParallelism } from 'node:os';
import type { EngineStats } from './blkback-engine.ts';
import { BlkbackThread } from './blkback-thread.ts';
import { addEngineStats, createEngineStats } from './engine-stats.ts';
import { CommandedRings } from './ring-service.ts';
import type {
  AttachQueue,
  DetachQueue,
  SetDisk,
  SetFaults,
  WorkerCommand,
} from './worker-messages.ts';

/** How the names of the threads under /proc/PID/task/TID/comm begin; a number follows. */
const BLKBACK_THREAD_NAME = 'sim-blkback-';

interface ServingThread {
  readonly thread: BlkbackThread;
  readonly queueIds: Set<number>;
}

/**
 * A thread for each ring, as xen-blkback has (xen_blkif_schedule), but no more than there are
 * processors; with more rings the threads share them evenly. Threads start with the first ring that
 * needs them and stay.
 */
export class BlkbackThreads extends CommandedRings {
  readonly #busyPollUs: number;
  readonly #threads: ServingThread[] = [];
  /** What a new thread has to know. */
  readonly #disks = new Map<number, SetDisk>();
  #faults: SetFaults | undefined;

  /** @param busyPollUs how long each looks for requests before it sleeps, while that pays. */
  constructor(busyPollUs: number) {
    super();
    this.#busyPollUs = busyPollUs;
  }

  override async stats(): Promise<EngineStats> {
    const all = await Promise.all(this.#threads.map(({ thread }) => thread.stats()));
    return all.reduce(addEngineStats, createEngineStats());
  }

  override async close(): Promise<void> {
    await Promise.all(this.#threads.map(({ thread }) => thread.close()));
  }

  protected override obey(command: WorkerCommand): Promise<void> {
    switch (command.kind) {
      case 'attach':
        return this.#attach(command);
      case 'detach':
        return this.#detach(command);
      case 'disk':
        this.#disks.set(command.diskId, command);
        return this.#tellAll(command);
      case 'faults':
        this.#faults = command;
        return this.#tellAll(command);
      case 'lose-power':
        return this.#tellAll(command);
    }
  }

  async #attach(queue: AttachQueue): Promise<void> {
    // A thread knows only of its own what a cache has not made durable.
    const isVolatile = this.#disks.get(queue.diskId)?.isVolatile === true;
    const chosen = isVolatile ? (this.#threads[0] ?? this.#start()) : this.#leastBusy();
    chosen.queueIds.add(queue.queueId);
    try {
      await chosen.thread.obey(queue);
    } catch (error) {
      chosen.queueIds.delete(queue.queueId);
      throw error;
    }
  }

  async #detach(command: DetachQueue): Promise<void> {
    const { queueId } = command;
    const serving = this.#threads.find(({ queueIds }) => queueIds.has(queueId));
    if (serving === undefined) return;
    await serving.thread.obey(command);
    serving.queueIds.delete(queueId);
  }

  async #tellAll(command: WorkerCommand): Promise<void> {
    await Promise.all(this.#threads.map(({ thread }) => thread.obey(command)));
  }

  #leastBusy(): ServingThread {
    const [first, ...others] = this.#threads;
    if (first === undefined) return this.#start();
    let chosen = first;
    for (const one of others) {
      if (one.queueIds.size < chosen.queueIds.size) chosen = one;
    }
    const mayStart = this.#threads.length < availableParallelism();
    return chosen.queueIds.size > 0 && mayStart ? this.#start() : chosen;
  }

  #start(): ServingThread {
    const name = `${BLKBACK_THREAD_NAME}${this.#threads.length}`;
    const thread = new BlkbackThread(name, this.#busyPollUs);
    thread.onBroken = (queueId) => this.onBroken?.(queueId);
    // Obeyed in order, before the ring is attached; without its disk that fails, and is told.
    const known = [...this.#disks.values(), ...(this.#faults === undefined ? [] : [this.#faults])];
    for (const command of known) void thread.obey(command).catch(() => undefined);
    const serving = { thread, queueIds: new Set<number>() };
    this.#threads.push(serving);
    return serving;
  }
}
