/** The main thread's view of a worker thread that serves rings of simulated back ends. */

import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { closeFd, createEventFd, signalEventFd } from '../sys/index.ts';
import type { EngineStats } from './blkback-engine.ts';
import { CommandedRings } from './ring-service.ts';
import type { WorkerCommand, WorkerMessage, WorkerReport, WorkerSetup } from './worker-messages.ts';

interface Pending {
  resolve(report: Extract<WorkerReport, { kind: 'done' }>): void;
  reject(error: Error): void;
}

const workerUrl = new URL(
  import.meta.url.endsWith('.ts') ? './blkback-worker.ts' : './blkback-worker.js',
  import.meta.url,
);

/** A worker thread that serves rings. */
export class BlkbackThread extends CommandedRings {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #lastSequence = 0;
  #hasEnded = false;

  /**
   * @param name the name under /proc/PID/task/TID/comm.
   * @param busyPollUs how long it looks for requests before it sleeps, while that pays.
   */
  constructor(name: string, busyPollUs: number) {
    super();
    this.#wakeFd = createEventFd();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const setup: WorkerSetup = {
      port: port2,
      wakeFd: this.#wakeFd,
      threadName: name,
      busyPollUs,
    };
    this.#worker = new Worker(workerUrl, {
      workerData: setup,
      transferList: [port2],
      // Those of the program may be about its own main module, as with node --input-type.
      execArgv: [],
      name,
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

  override async obey(command: WorkerCommand): Promise<void> {
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
