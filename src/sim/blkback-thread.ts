/**
 * Where rings are served: the main thread's view of a back end's worker thread, and the same done
 * step by step in the calling thread for deterministic tests.
 */

import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { closeFd, createEventFd, signalEventFd } from '../sys/index.ts';
import type { EngineStats } from './blkback-engine.ts';
import type { RunnerFaults, StopMode } from './queue-runner.ts';
import type {
  AttachQueue,
  NumberedCommand,
  WorkerCommand,
  WorkerReport,
  WorkerSetup,
} from './worker-messages.ts';

/** Serves rings. Commands are obeyed in order; each promise resolves when that was done. */
export interface RingService {
  /** Called when a front end broke its ring. */
  onBroken: ((queueId: number) => void) | undefined;
  setDisk(diskId: number, fd: number, sectors: number): Promise<void>;
  attach(queue: Omit<AttachQueue, 'kind'>): Promise<void>;
  /** Resolves when the ring is not touched any more and nothing that it named is mapped. */
  detach(queueId: number, mode: StopMode): Promise<void>;
  setFaults(faults: RunnerFaults): Promise<void>;
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

/** A worker thread that serves rings. */
export class BlkbackThread implements RingService {
  onBroken: ((queueId: number) => void) | undefined;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #commandFd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #lastSequence = 0;
  #hasEnded = false;

  constructor() {
    this.#commandFd = createEventFd();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const setup: WorkerSetup = {
      port: port2,
      commandFd: this.#commandFd,
      threadName: BLKBACK_THREAD_NAME,
    };
    this.#worker = new Worker(workerUrl, {
      workerData: setup,
      transferList: [port2],
      name: BLKBACK_THREAD_NAME,
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#end(new Error('The thread of the simulated back end has ended.'));
        resolve();
      });
    });
    this.#worker.once('error', (error) => this.#end(error as Error));
    this.#port.on('message', (report: WorkerReport) => this.#receive(report));
    // A program that is done may end; while a command is under way it may not.
    this.#worker.unref();
    this.#port.unref();
    // process.exit waits for threads, and a thread in epoll_wait waits for ever.
    process.on('exit', this.#stopAtExit);
  }

  async setDisk(diskId: number, fd: number, sectors: number): Promise<void> {
    await this.#command({ kind: 'disk', diskId, fd, sectors });
  }

  async attach(queue: Omit<AttachQueue, 'kind'>): Promise<void> {
    await this.#command({ kind: 'attach', ...queue });
  }

  async detach(queueId: number, mode: StopMode): Promise<void> {
    await this.#command({ kind: 'detach', queueId, mode });
  }

  async setFaults(faults: RunnerFaults): Promise<void> {
    await this.#command({ kind: 'faults', ...faults });
  }

  async stats(): Promise<EngineStats> {
    const { stats } = await this.#command({ kind: 'stats' });
    if (stats === undefined) throw new TypeError('The worker sent no counts.');
    return stats;
  }

  async close(): Promise<void> {
    if (!this.#hasEnded) await this.#command({ kind: 'stop' });
    this.#worker.ref();
    await this.#ended;
    process.off('exit', this.#stopAtExit);
    closeFd(this.#commandFd);
  }

  #command(command: WorkerCommand): Promise<Extract<WorkerReport, { kind: 'done' }>> {
    if (this.#hasEnded) {
      return Promise.reject(new Error('The thread of the simulated back end has ended.'));
    }
    this.#lastSequence += 1;
    const sequence = this.#lastSequence;
    return new Promise((resolve, reject) => {
      if (this.#pending.size === 0) this.#port.ref();
      this.#pending.set(sequence, { resolve, reject });
      this.#send({ sequence, command });
    });
  }

  #send(numbered: NumberedCommand): void {
    this.#port.postMessage(numbered);
    signalEventFd(this.#commandFd);
  }

  readonly #stopAtExit = (): void => {
    this.#send({ sequence: 0, command: { kind: 'stop' } });
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
