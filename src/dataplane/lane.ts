/** The main thread's side of a lane: starts the worker, talks to it, and knows when it has ended. */

import { Worker } from 'node:worker_threads';
import type { Agreement, ExportInfo } from 'nbd-server-ts/protocol';
import { closeFd, createEventFd, signalEventFd } from '../sys/index.ts';
import { Counters } from './counters.ts';
import type { LaneConfig } from './lane-config.ts';
import type { LaneEvent, LaneMessage } from './messages.ts';

/** A client whose handshake is complete. */
export interface AdoptedClient {
  readonly connectionId: number;
  /** The socket, non-blocking; the lane closes it. */
  readonly fd: number;
  readonly info: ExportInfo;
  readonly agreement: Agreement;
  /** Bytes that came behind the handshake. */
  readonly bytes: Uint8Array;
}

export interface LaneHandlers {
  onEvent(event: LaneEvent): void;
  /** The thread ended although nobody asked it to. */
  onFailure(error: Error): void;
}

export class Lane {
  readonly counters: Counters;
  readonly #worker: Worker;
  readonly #controlFd: number;
  readonly #handlers: LaneHandlers;
  readonly #ended: Promise<void>;
  readonly #ready: Promise<void>;
  #isStopping = false;

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
      name: `lane-${config.index}`,
    });
    this.#ready = new Promise((resolve, reject) => {
      this.#worker.on('message', (event: LaneEvent) => {
        if (event.type === 'ready') resolve();
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
          this.#handlers.onFailure(new Error(`lane-${config.index} ended by itself`));
        }
      });
    });
  }

  /** Resolves when the lane is in its loop; rejects when it could not start. */
  ready(): Promise<void> {
    return this.#ready;
  }

  adopt(client: AdoptedClient): void {
    this.#send({ type: 'adopt', ...client });
  }

  /** Lets it finish; the event `drained` follows. */
  drain(): void {
    this.#send({ type: 'drain' });
  }

  /** Takes the ring away; the event `suspended` follows. */
  suspend(): void {
    this.#send({ type: 'suspend' });
  }

  /** Gives it a new ring, and new pools where the old grants are void. */
  resume(message: Omit<Extract<LaneMessage, { type: 'resume' }>, 'type'>): void {
    this.#send({ type: 'resume', ...message });
  }

  /** Answers everything with EIO from now on: the device is gone. */
  breakDown(): void {
    this.#send({ type: 'break-down' });
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
