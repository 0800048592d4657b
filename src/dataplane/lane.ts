/** The main thread's side of a lane: starts the worker, talks to it, knows when it has ended. */

import { Worker } from 'node:worker_threads';
import type { ExportInfo } from 'nbd-server-ts/protocol';
import { closeFd, createEventFd, signalEventFd } from '../sys/index.ts';
import { Counter, Counters } from './counters.ts';
import type { LaneConfig } from './lane-config.ts';
import type { LaneEvent, LaneMessage } from './messages.ts';
import type { ReplyForm } from './reply-header.ts';

/** The words with which a lane answers an order. */
type Answer = Extract<
  LaneEvent['type'],
  'quiet' | 'suspended' | 'evacuated' | 'resumed' | 'drained'
>;

/** A client whose handshake is complete. */
export interface AdoptedClient {
  readonly connectionId: number;
  /** The socket, non-blocking; the lane closes it. */
  readonly fd: number;
  readonly info: ExportInfo;
  readonly agreement: ReplyForm;
  /** Bytes that came behind the handshake. */
  readonly bytes: Uint8Array;
}

/** Who hears what a lane tells. */
export interface LaneHandlers {
  onEvent(event: LaneEvent): void;
  /** The thread ended although nobody asked it to. */
  onFailure(error: Error): void;
}

/** A lane, as the main thread knows it. */
export class Lane {
  readonly counters: Counters;
  readonly #worker: Worker;
  readonly #controlFd: number;
  readonly #handlers: LaneHandlers;
  readonly #ended: Promise<void>;
  readonly #ready: Promise<void>;
  #isStopping = false;
  #clientCount = 0;
  /** Who waits for which answer. */
  readonly #waiting = new Map<Answer, (event: LaneEvent) => void>();

  constructor(config: Omit<LaneConfig, 'controlFd' | 'counters'>, handlers: LaneHandlers) {
    this.#handlers = handlers;
    this.counters = new Counters();
    this.#controlFd = createEventFd();
    const workerData: LaneConfig = {
      ...config,
      controlFd: this.#controlFd,
      counters: this.counters.shared,
    };
    this.#worker = new Worker(new URL('./lane-worker.js', import.meta.url), {
      workerData,
      name: config.name,
      // Options of the main thread, such as an inspector's port, are not for this one.
      execArgv: [],
    });
    this.#ready = new Promise((resolve, reject) => {
      this.#worker.on('message', (event: LaneEvent) => {
        if (event.type === 'ready') resolve();
        if (event.type === 'closed') this.#clientCount -= 1;
        const answer = event.type as Answer;
        const waiting = this.#waiting.get(answer);
        this.#waiting.delete(answer);
        waiting?.(event);
        this.#handlers.onEvent(event);
      });
      this.#worker.on('error', (error: Error) => {
        reject(error);
        this.#handlers.onFailure(error);
      });
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        closeFd(this.#controlFd);
        resolve();
        if (!this.#isStopping && code === 0) {
          this.#handlers.onFailure(new Error(`${config.name} ended by itself`));
        }
      });
    });
  }

  /**
   * Clients that were given to it and have not left. Its own counter lags behind by those that it
   * has not heard of yet, and of clients that come together all would be given to one lane.
   */
  get clientCount(): number {
    return this.#clientCount;
  }

  /** False once the backend has said, on this connection, that it takes no trims. */
  get takesTrims(): boolean {
    return this.counters.get(Counter.TRIMS_REFUSED_NOW) === 0;
  }

  /** How often it was given a new ring. */
  get recoveryCount(): number {
    return this.counters.get(Counter.RECOVERIES);
  }

  /** Resolves when the lane is in its loop; rejects when it could not start. */
  ready(): Promise<void> {
    return this.#ready;
  }

  adopt(client: AdoptedClient): void {
    this.#clientCount += 1;
    this.#send({ type: 'adopt', ...client });
  }

  /** Lets it finish and flush the disk. Resolves to the NBD error number of that flush, or 0. */
  async drain(): Promise<number> {
    const event = await this.#order({ type: 'drain' }, 'drained');
    return event.type === 'drained' ? event.errno : 0;
  }

  /** Stops asking the backend; resolves when it has answered all it was asked. */
  async hold(): Promise<void> {
    await this.#order({ type: 'hold' }, 'quiet');
  }

  /** Takes the ring away; resolves when the lane does not touch it any more. */
  async suspend(): Promise<void> {
    await this.#order({ type: 'suspend' }, 'suspended');
  }

  /** Of a suspended lane: resolves when it does not touch its granted pages any more. */
  async evacuate(): Promise<void> {
    await this.#order({ type: 'evacuate' }, 'evacuated');
  }

  /** Gives a suspended lane a new ring, and new pools if it was evacuated. */
  async resume(message: Omit<Extract<LaneMessage, { type: 'resume' }>, 'type'>): Promise<void> {
    await this.#order({ type: 'resume', ...message }, 'resumed');
  }

  /** Sends an order; its answer, or the end of the thread, ends the wait. */
  async #order(message: LaneMessage, answer: Answer): Promise<LaneEvent | { type: 'ended' }> {
    const answered = new Promise<LaneEvent>((resolve) => {
      this.#waiting.set(answer, resolve);
    });
    this.#send(message);
    return await Promise.race([answered, this.#ended.then(() => ({ type: 'ended' as const }))]);
  }

  /** Answers everything with EIO from now on: the device is gone. */
  breakDown(): void {
    this.#send({ type: 'break-down' });
  }

  /** Makes an idle lane take a turn, which its counter of turns shows. */
  wake(): void {
    signalEventFd(this.#controlFd);
  }

  /** Ends the thread. A thread blocked in a system call cannot be terminated, so it is asked. */
  stop(): Promise<void> {
    if (!this.#isStopping) {
      this.#isStopping = true;
      this.#send({ type: 'stop' });
    }
    return this.#ended;
  }

  #send(message: LaneMessage): void {
    this.#worker.postMessage(message);
    signalEventFd(this.#controlFd);
  }
}
