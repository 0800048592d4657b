/**
 * Where rings are served: the main thread's view of a back end's worker thread, and the same done
 * step by step in the calling thread for deterministic tests.
 */

import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { closeFd, createEventFd, signalEventFd } from '../sys/index.ts';
import type { EngineStats } from './blkback-engine.ts';
import type { RunnerFaults, StopMode } from './queue-runner.ts';
import { RingSet, type ServingThread } from './ring-set.ts';
import type {
  AttachQueue,
  WorkerCommand,
  WorkerMessage,
  WorkerReport,
  WorkerSetup,
} from './worker-messages.ts';

/** Serves rings. Commands are obeyed in order; each promise resolves when that was done. */
export interface RingService {
  /** Called when a front end broke its ring. */
  onBroken: ((queueId: number) => void) | undefined;
  /** Names a disk, or gives it another size. With `isVolatile` it has a cache that power keeps. */
  setDisk(diskId: number, fd: number, sectors: number, isVolatile?: boolean): Promise<void>;
  attach(queue: Omit<AttachQueue, 'kind'>): Promise<void>;
  /** Resolves when the ring is not touched any more and nothing that it named is mapped. */
  detach(queueId: number, mode: StopMode): Promise<void>;
  /** Makes all rings late or faulty from now on. */
  setFaults(faults: RunnerFaults): Promise<void>;
  /** The power of a volatile disk fails. Missing where no disk can be volatile. */
  losePower?(diskId: number, seed: number): Promise<void>;
  stats(): Promise<EngineStats>;
  /** Every ring must be detached. */
  close(): Promise<void>;
}

interface Pending {
  resolve(report: Extract<WorkerReport, { kind: 'done' }>): void;
  reject(error: Error): void;
}

/** The name under /proc/PID/task/TID/comm. */
export const BLKBACK_THREAD_NAME = 'sim-blkback';

const workerUrl = new URL(
  import.meta.url.endsWith('.ts') ? './blkback-worker.ts' : './blkback-worker.js',
  import.meta.url,
);

/** Turns the calls of {@link RingService} into commands for whoever obeys them. */
abstract class CommandedRings implements RingService {
  onBroken: ((queueId: number) => void) | undefined;

  /** Resolves when the command was obeyed. */
  protected abstract obey(command: WorkerCommand): Promise<void>;
  abstract stats(): Promise<EngineStats>;
  abstract close(): Promise<void>;

  setDisk(diskId: number, fd: number, sectors: number, isVolatile = false): Promise<void> {
    return this.obey({ kind: 'disk', diskId, fd, sectors, isVolatile });
  }

  attach(queue: Omit<AttachQueue, 'kind'>): Promise<void> {
    return this.obey({ kind: 'attach', ...queue });
  }

  detach(queueId: number, mode: StopMode): Promise<void> {
    return this.obey({ kind: 'detach', queueId, mode });
  }

  setFaults({ errorRate, delayMs }: RunnerFaults): Promise<void> {
    return this.obey({ kind: 'faults', errorRate, delayMs });
  }

  losePower(diskId: number, seed: number): Promise<void> {
    return this.obey({ kind: 'lose-power', diskId, seed });
  }
}

/** A worker thread that serves rings. */
export class BlkbackThread extends CommandedRings {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #lastSequence = 0;
  #hasEnded = false;

  /** @param busyPollUs how long it looks for requests before it sleeps, while that pays. */
  constructor(busyPollUs: number) {
    super();
    this.#wakeFd = createEventFd();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const setup: WorkerSetup = {
      port: port2,
      wakeFd: this.#wakeFd,
      threadName: BLKBACK_THREAD_NAME,
      busyPollUs,
    };
    this.#worker = new Worker(workerUrl, {
      workerData: setup,
      transferList: [port2],
      // Those of the program may be about its own main module, as with node --input-type.
      execArgv: [],
      name: BLKBACK_THREAD_NAME,
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#end(new Error('The thread of the simulated back end has ended.'));
        resolve();
      });
    });
    this.#worker.once('error', (error) => {
      this.#end(error as Error);
      // A fault of the simulation itself is not something to go on with.
      queueMicrotask(() => {
        throw error;
      });
    });
    this.#port.on('message', (report: WorkerReport) => this.#receive(report));
    // A program that is done may end; while a command is under way it may not.
    this.#worker.unref();
    this.#port.unref();
    // process.exit waits for threads, and a thread in epoll_wait waits for ever.
    process.on('exit', this.#stopAtExit);
  }

  protected override async obey(command: WorkerCommand): Promise<void> {
    await this.#ask(command);
  }

  override async stats(): Promise<EngineStats> {
    const { stats } = await this.#ask({ kind: 'stats' });
    if (stats === undefined) throw new TypeError('The worker sent no counts.');
    return stats;
  }

  override async close(): Promise<void> {
    this.#worker.ref();
    // Its end may be seen before its answer; that is an answer as well.
    if (!this.#hasEnded) await this.#ask({ kind: 'stop' }).catch(() => undefined);
    await this.#ended;
    process.off('exit', this.#stopAtExit);
    closeFd(this.#wakeFd);
  }

  #ask(body: WorkerMessage['body']): Promise<Extract<WorkerReport, { kind: 'done' }>> {
    if (this.#hasEnded) {
      return Promise.reject(new Error('The thread of the simulated back end has ended.'));
    }
    this.#lastSequence += 1;
    const sequence = this.#lastSequence;
    return new Promise((resolve, reject) => {
      if (this.#pending.size === 0) this.#port.ref();
      this.#pending.set(sequence, { resolve, reject });
      this.#send({ sequence, body });
    });
  }

  #send(message: WorkerMessage): void {
    this.#port.postMessage(message);
    signalEventFd(this.#wakeFd);
  }

  readonly #stopAtExit = (): void => {
    this.#send({ sequence: 0, body: { kind: 'stop' } });
  };

  #receive(report: WorkerReport): void {
    if (report.kind === 'broken') {
      this.onBroken?.(report.queueId);
      return;
    }
    const pending = this.#pending.get(report.sequence);
    this.#pending.delete(report.sequence);
    if (this.#pending.size === 0) this.#port.unref();
    if (report.kind === 'done') pending?.resolve(report);
    else pending?.reject(new Error(`The simulated back end refused: ${report.message}.`));
  }

  #end(error: Error): void {
    this.#hasEnded = true;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#port.unref();
    for (const one of pending) one.reject(error);
  }
}

/**
 * Serves rings in the calling thread, a step at a time, with a clock of the caller's: for
 * deterministic tests. Nothing happens outside of {@link step}.
 */
export class SteppedRings extends CommandedRings {
  readonly #rings: RingSet;

  constructor(clockMs: () => number, thread: ServingThread = {}) {
    super();
    this.#rings = new RingSet(clockMs, thread);
    this.#rings.onBroken = (queueId) => this.onBroken?.(queueId);
  }

  /** Serves what has an event waiting, and what is due by the clock. */
  step(): void {
    this.#rings.turn(0);
  }

  /** When the next {@link step} has something to do without an event; Infinity for never. */
  get nextDueMs(): number {
    return this.#rings.nextDueMs;
  }

  protected override obey(command: WorkerCommand): Promise<void> {
    return new Promise((resolve) => this.#rings.obey(command, resolve));
  }

  override stats(): Promise<EngineStats> {
    return Promise.resolve({ ...this.#rings.stats });
  }

  override close(): Promise<void> {
    this.#rings.close();
    return Promise.resolve();
  }
}
