/**
 * `nbd-device`: makes a block device of the kernel's of an NBD server on this machine, and keeps it
 * connected. When the server is gone, or is started anew, requests wait, and go to the next one;
 * nbd-client gives up there, and whoever uses the disk sees errors.
 *
 * There is no time limit for a request: one that the kernel gave up and sent again could be done
 * twice, late, over something newer. What a server leaves unanswered when it goes is sent again by
 * the kernel within five seconds of the next connection, from Linux 5.10 on.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { DaemonError, formatSize, type Logger, type Supervisor } from '../daemon/index.ts';
import { closeFd } from '../sys/index.ts';
import type { KernelNbd, NbdConnection } from './kernel-nbd.ts';
import { NegotiationError } from './negotiate.ts';
import { connectServer, type ServerConnection } from './server-socket.ts';

/** What is to be connected. */
export interface NbdDeviceOptions {
  /** N of /dev/nbdN. */
  readonly index: number;
  /** The server's Unix socket. */
  readonly socket: string;
  /** The empty name is the server's default. */
  readonly exportName: string;
  /** How long requests wait for a server that is gone. */
  readonly waitSeconds: number;
  readonly kernel: KernelNbd;
  readonly supervisor: Supervisor;
  readonly log: Logger;
  /** Ends the device, in good order. */
  readonly signal: AbortSignal;
  /** The device can be used from now on. */
  readonly onReady: () => void;
}

const RETRY_MS = 200;
const BLOCK_BYTES_MIN = 512;
const BLOCK_BYTES_MAX = 4096;

/**
 * Connects the device and keeps it connected until it is told to stop.
 *
 * @throws DaemonError when it cannot be connected at first
 */
export async function keepNbdDevice(options: NbdDeviceOptions): Promise<void> {
  const device = new KeptDevice(options);
  try {
    await device.run();
  } catch (error) {
    // It was told to stop before there was a device.
    if (!options.signal.aborted) throw error;
  } finally {
    options.kernel.close();
  }
}

class KeptDevice {
  readonly #options: NbdDeviceOptions;
  readonly #path: string;
  /** Lets nobody else give the device a connection, and a later one of us do so. */
  readonly #owner: string;
  #onLost: () => void = () => undefined;
  #isLost = false;

  constructor(options: NbdDeviceOptions) {
    this.#options = options;
    this.#path = `/dev/nbd${options.index}`;
    this.#owner = `xenblk-nbd:${options.socket}:${options.exportName}`;
  }

  async run(): Promise<void> {
    const { index, kernel, signal, supervisor, log, onReady } = this.#options;
    kernel.onLost((lost) => {
      if (lost !== index) return;
      this.#isLost = true;
      this.#onLost();
    });
    await this.#start();
    onReady();
    supervisor.ready(`${this.#path} is connected`);
    signal.addEventListener('abort', () => this.#onLost(), { once: true });
    while (!signal.aborted) {
      if (!this.#isLost) {
        await new Promise<void>((resolve) => {
          this.#onLost = resolve;
          if (this.#isLost || signal.aborted) resolve();
        });
        continue;
      }
      await this.#reconnect();
    }
    supervisor.stopping();
    kernel.disconnect(index);
    log.info('device-ended', { device: this.#path }, `${this.#path} is disconnected`);
  }

  async #start(): Promise<void> {
    const { index, kernel, waitSeconds, log } = this.#options;
    const owner = kernel.ownerOf(index);
    if (owner !== undefined && owner !== this.#owner) {
      throw new DaemonError(
        `${this.#path} is connected already: choose another, or end that one with: ` +
          `nbd-client -d ${this.#path}`,
      );
    }
    if (owner === this.#owner) {
      // A process like this one was killed. What it had connected may live or not: both are right.
      log.info('device-taken-up', { device: this.#path }, `${this.#path} is connected: taken up`);
      await this.#reconnect();
      return;
    }
    const server = await this.#connectServer(false);
    const connection = connectionOf(server);
    try {
      kernel.connect(index, connection, waitSeconds, this.#owner);
    } finally {
      closeFd(server.fd);
    }
    const size = formatSize(Number(connection.sizeBytes));
    const message = `${this.#path} is connected: ${size}, from ${this.#options.socket}`;
    const details = { device: this.#path, sizeBytes: Number(connection.sizeBytes) };
    log.info('device-connected', details, message);
  }

  async #reconnect(): Promise<void> {
    const { index, kernel, signal, supervisor, log } = this.#options;
    const startMs = performance.now();
    const details = { device: this.#path };
    if (this.#isLost) {
      const message = `${this.#path} has lost its server; requests wait for the next one`;
      log.warn('device-lost', details, message);
      supervisor.status(`${this.#path} waits for its server`);
    }
    const server = await this.#connectServer(true).catch((error: unknown) => {
      if (signal.aborted) return undefined;
      throw error;
    });
    if (server === undefined) return;
    this.#isLost = false;
    try {
      kernel.reconnect(index, connectionOf(server), this.#owner);
    } finally {
      closeFd(server.fd);
    }
    const ms = Math.round(performance.now() - startMs);
    log.info('device-back', { ...details, ms }, `${this.#path} is connected again after ${ms} ms`);
    supervisor.status(`${this.#path} is connected`);
  }

  /** Asks until there is a server; one that is not patient gives up at a refusal. */
  async #connectServer(isPatient: boolean): Promise<ServerConnection> {
    const { socket, exportName, signal, log } = this.#options;
    let told: string | undefined;
    for (;;) {
      try {
        return await connectServer(socket, exportName, signal);
      } catch (error) {
        if (!(error instanceof NegotiationError)) throw error;
        const message = `${socket}: ${error.message}`;
        if (!isPatient && !error.isTemporary) throw new DaemonError(message, { cause: error });
        if (told !== message) log.warn('device-waits', { device: this.#path }, message);
        told = message;
      }
      await sleep(RETRY_MS);
      signal.throwIfAborted();
    }
  }
}

function connectionOf({ fd, description }: ServerConnection): NbdConnection {
  const { sizeBytes, flags, minimumBlockBytes } = description;
  const blockBytes = Math.min(Math.max(minimumBlockBytes, BLOCK_BYTES_MIN), BLOCK_BYTES_MAX);
  return { fd, sizeBytes, flags, blockBytes };
}
