/**
 * The daemon: attaches to the vbd, listens, serves, and stops in good order. Returns when it has
 * stopped, and throws what people should read.
 */

import { rmSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import type { ExportCatalog, ExportEntry } from 'nbd-server-ts/protocol';
import { XenStoreClient, XenStoreError } from 'xenstore-client';
import { formatDeviceNumber, parseDeviceNumber } from '../blkif/index.ts';
import {
  type FrontendEnd,
  FrontendError,
  type HolderOf,
  listVbds,
  selectVbd,
} from '../frontend/index.ts';
import { HostError, type XenHost } from '../host/index.ts';
import {
  createSimulatedHost,
  parseSimulatedFaults,
  parseSimulatedFeatures,
  SimulationOptionError,
} from '../sim/index.ts';
import { closeFd, exitNow, SysError } from '../sys/index.ts';
import { createLinuxHost, kernelDriverOf } from '../xen/index.ts';
import { formatAddress, nbdUri } from './addresses.ts';
import { DaemonError, UsageError } from './errors.ts';
import { negotiate } from './handshake.ts';
import { type Listener, listen } from './listener.ts';
import { createLogger, type Logger } from './log.ts';
import { checkDiskFile, type ServeOptions } from './serve-options.ts';
import { VbdDevice } from './vbd-device.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
const DRAIN_MS = 30_000;
const SIMULATED_VBD = 'xvda';
/** As shells report a process that a signal ended. */
const EXIT_SIGNALLED = 128;

/**
 * Runs the daemon until it is told to stop.
 *
 * @throws DaemonError or UsageError for what people can mend; anything else is a fault of ours.
 */
export async function serve(options: ServeOptions): Promise<void> {
  try {
    await new Daemon(options).run();
  } catch (error) {
    throw forPeople(error);
  }
}

/** Errors of the layers below whose sentence says all that people need. */
function forPeople(error: unknown): unknown {
  if (error instanceof SimulationOptionError) {
    return new UsageError(error.message, { cause: error });
  }
  const isSpoken =
    error instanceof HostError ||
    error instanceof FrontendError ||
    error instanceof XenStoreError ||
    error instanceof SysError;
  return isSpoken ? new DaemonError(error.message, { cause: error }) : error;
}

class Daemon {
  readonly #options: ServeOptions;
  readonly #log: Logger;
  readonly #listeners: Listener[] = [];
  /** Clients that came before the device was ready. */
  readonly #early: net.Socket[] = [];
  readonly #handshaking = new Set<net.Socket>();
  readonly #abort = new AbortController();
  #device: VbdDevice | undefined;
  #isStopping = false;
  #clientCount = 0;
  #nextConnectionId = 1;
  #hasPidFile = false;
  readonly #stop: Promise<Error | undefined>;
  #requestStop: (error?: Error) => void = () => undefined;

  constructor(options: ServeOptions) {
    this.#options = options;
    this.#log = createLogger(options.logLevel, process.stderr);
    this.#stop = new Promise((resolve) => {
      this.#requestStop = (error) => resolve(error);
    });
  }

  async run(): Promise<void> {
    const onSignal = (signal: NodeJS.Signals): void => this.#signalled(signal);
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    let host: XenHost | undefined;
    let store: XenStoreClient | undefined;
    try {
      // What can fail without touching the vbd comes first.
      await this.#listen();
      host = await this.#openHost();
      store = new XenStoreClient(await host.openXenStore());
      this.#device = await this.#attach(host, store);
      this.#ready();
      const error = await this.#stop;
      if (error !== undefined) throw error;
    } catch (error) {
      // A signal during the start ends it without a complaint.
      if (!this.#abort.signal.aborted) throw error;
    } finally {
      await this.#shutDown();
      await store?.close();
      await host?.close();
      process.off('SIGTERM', onSignal);
      process.off('SIGINT', onSignal);
    }
  }

  #signalled(signal: NodeJS.Signals): void {
    if (this.#isStopping) {
      this.#removeFiles();
      exitNow(EXIT_SIGNALLED + (signal === 'SIGINT' ? 2 : 15));
    }
    this.#isStopping = true;
    this.#log.info('stopping', { signal }, `${signal}: stopping; a second signal is immediate`);
    this.#abort.abort();
    this.#requestStop();
  }

  // --- start

  async #listen(): Promise<void> {
    for (const address of this.#options.listen) {
      this.#listeners.push(await listen(address, (socket) => this.#arrived(socket)));
    }
  }

  async #openHost(): Promise<XenHost> {
    const { simulate, simulateFeatures, simulateFaults, vbd } = this.#options;
    if (simulate === undefined) return createLinuxHost();
    if (simulate.kind === 'file') checkDiskFile(simulate.path);
    return await createSimulatedHost({
      disks: [
        {
          vbd: simulatedVbd(vbd),
          ...(simulate.kind === 'file'
            ? { file: simulate.path }
            : { sizeBytes: simulate.sizeBytes }),
        },
      ],
      ...(simulateFeatures && { features: parseSimulatedFeatures(simulateFeatures) }),
      ...(simulateFaults && { faults: parseSimulatedFaults(simulateFaults) }),
    });
  }

  async #attach(host: XenHost, store: XenStoreClient): Promise<VbdDevice> {
    const { simulate, vbd: wanted, exportName, isReadOnly, queues, ringPageOrder } = this.#options;
    const holderOf: HolderOf = (id) => {
      const driver = simulate === undefined ? kernelDriverOf(id) : undefined;
      return driver && `the kernel's driver ${driver}`;
    };
    const vbd = selectVbd(await listVbds(store, holderOf), wanted);
    return await VbdDevice.open({
      host,
      store,
      vbd,
      holderOf,
      exportName: exportName ?? vbd.name,
      isReadOnly,
      queues: queues ?? 1,
      ringPageOrder,
      log: this.#log,
      signal: this.#abort.signal,
      events: {
        clientLeft: ({ connectionId, reason, requestCount }) => {
          this.#clientCount -= 1;
          const details = { client: connectionId, reason, requests: requestCount };
          this.#log.info('client-left', details, `client ${connectionId} left: ${reason}`);
        },
        ended: (end) => this.#deviceEnded(end),
        failed: (error) => this.#requestStop(error),
      },
    });
  }

  #deviceEnded(end: FrontendEnd): void {
    if (end.reason === 'unplugged') {
      this.#log.warn('unplugged', {}, 'the vbd was unplugged');
      this.#requestStop();
    } else if (end.reason === 'failed') {
      this.#requestStop(end.error ?? new DaemonError('the vbd failed'));
    }
  }

  #ready(): void {
    const { pidFile, simulate } = this.#options;
    if (pidFile !== undefined) {
      try {
        writeFileSync(pidFile, `${process.pid}\n`);
        this.#hasPidFile = true;
      } catch (error) {
        throw new DaemonError(`cannot write the pid file: ${(error as Error).message}`, {
          cause: error,
        });
      }
    }
    const name = this.#device?.exportEntry.name ?? '';
    const uris = this.#listeners.map(({ address }) => nbdUri(address, name));
    for (const uri of uris) process.stdout.write(`ready: ${uri}\n`);
    if (simulate !== undefined && uris[0] !== undefined) this.#printHints(uris[0]);
    for (const socket of this.#early.splice(0)) this.#greet(socket);
  }

  /** What a newcomer may type next. */
  #printHints(uri: string): void {
    const [listener] = this.#listeners;
    const device =
      listener?.address.kind === 'unix'
        ? `nbd-client -unix ${listener.address.path} /dev/nbd0`
        : `nbd-client ${listener?.address.host ?? ''} ${listener?.address.port ?? ''} /dev/nbd0`;
    process.stderr.write(
      `This is a simulated disk. Look at it from another terminal, for example with\n` +
        `  nbdinfo '${uri}'\n` +
        `  nbdcopy --progress '${uri}' copy.img\n` +
        `  qemu-img info '${uri}'\n` +
        `  sudo ${device}\n` +
        `Stop with Ctrl-C.\n`,
    );
  }

  // --- clients

  #arrived(socket: net.Socket): void {
    if (this.#isStopping) {
      socket.destroy();
    } else if (this.#device === undefined) {
      socket.on('error', () => socket.destroy());
      this.#early.push(socket);
    } else {
      this.#greet(socket);
    }
  }

  #greet(socket: net.Socket): void {
    this.#serveClient(socket).catch((error: Error) => {
      this.#log.error('client-failed', {}, `a client could not be served: ${error.message}`);
      socket.destroy();
    });
  }

  async #serveClient(socket: net.Socket): Promise<void> {
    const { maxConnections } = this.#options;
    const client = this.#nextConnectionId;
    this.#nextConnectionId += 1;
    const peer = socket.remoteAddress ?? 'unix';
    if (this.#clientCount + this.#handshaking.size >= maxConnections) {
      const details = { client, peer, maxConnections };
      this.#log.warn(
        'client-refused',
        details,
        `client ${client} (${peer}) refused: limit reached`,
      );
      socket.destroy();
      return;
    }
    this.#handshaking.add(socket);
    const outcome = await negotiate(socket, this.#catalog(), { timeoutMs: HANDSHAKE_TIMEOUT_MS });
    this.#handshaking.delete(socket);
    if (outcome.reason !== undefined) {
      const details = { client, peer, reason: outcome.reason };
      this.#log.warn('client-handshake', details, `client ${client} (${peer}): ${outcome.reason}`);
    }
    if (outcome.client === undefined) return;
    const { fd, bytes, result } = outcome.client;
    if (this.#isStopping || this.#device === undefined) {
      closeFd(fd);
      return;
    }
    this.#clientCount += 1;
    this.#device.adopt({
      connectionId: client,
      fd,
      bytes,
      info: result.export,
      agreement: result.agreement,
    });
    this.#log.info('client-came', { client, peer }, `client ${client} (${peer}) came`);
  }

  /** The one export, under its name and under the empty one. */
  #catalog(): ExportCatalog {
    const entry = (): ExportEntry[] =>
      this.#device === undefined ? [] : [this.#device.exportEntry];
    return {
      find: (name) => entry().find((candidate) => name === '' || candidate.name === name),
      list: entry,
    };
  }

  // --- end

  async #shutDown(): Promise<void> {
    this.#isStopping = true;
    for (const listener of this.#listeners) listener.close();
    for (const socket of [...this.#early, ...this.#handshaking]) socket.destroy();
    await this.#device?.close(DRAIN_MS);
    this.#removeFiles();
    for (const { address } of this.#listeners) {
      this.#log.debug('closed', {}, `no longer listening at ${formatAddress(address)}`);
    }
  }

  #removeFiles(): void {
    const { pidFile } = this.#options;
    if (this.#hasPidFile && pidFile !== undefined) rmSync(pidFile, { force: true });
    this.#hasPidFile = false;
  }
}

/** The name of the simulated vbd: what the command line asks for, so that it is found. */
function simulatedVbd(wanted: string | undefined): string {
  if (wanted === undefined) return SIMULATED_VBD;
  try {
    return formatDeviceNumber(parseDeviceNumber(wanted));
  } catch {
    throw new UsageError(`${wanted}: a simulated vbd needs a name such as xvdb, or a number`);
  }
}
