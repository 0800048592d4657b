/**
 * The daemon: attaches to its vbds, listens, serves, and stops in good order. Returns when it has
 * stopped, and throws what people should read.
 */

import { rmSync, writeFileSync } from 'node:fs';
import { XenStoreClient } from 'xenstore-client';
import type { FrontendEnd } from '../frontend/index.ts';
import type { XenHost } from '../host/index.ts';
import { becomeIoFlusher, exitNow } from '../sys/index.ts';
import { TraceWriter } from '../trace/index.ts';
import { Doors } from './doors.ts';
import { DaemonError } from './errors.ts';
import { forPeople } from './for-people.ts';
import { openHost } from './host.ts';
import { LaneWatch } from './lane-watch.ts';
import { createLogger, type Logger } from './log.ts';
import { describeMemory } from './memory-bounds.ts';
import { Monitoring } from './monitoring.ts';
import { OrphanedChannels } from './orphaned-channels.ts';
import { Reception } from './reception.ts';
import { OWN_BYTES, type ServeOptions } from './serve-options.ts';
import { ServedVbds } from './served-vbds.ts';
import { describeStatus } from './status.ts';
import { Supervisor } from './supervisor.ts';
import { TakeOver, thisKernel } from './take-over.ts';
import { TlsCredentials } from './tls-credentials.ts';
import type { VbdDevice } from './vbd-device.ts';
import { Watchdog } from './watchdog.ts';

const DRAIN_MS = 30_000;
/** Requests in progress have this long to end before clients are told that it is over. */
const LAST_REQUESTS_MS = 5_000;
/** What was answered has this long to reach clients that read slowly. */
const LAST_WORDS_MS = 5_000;
/** The service manager is told of changes at most this often. */
const STATUS_MS = 1_000;
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

class Daemon {
  readonly #options: ServeOptions;
  readonly #log: Logger;
  readonly #supervisor: Supervisor;
  readonly #orphans: OrphanedChannels;
  readonly #tls: TlsCredentials | undefined;
  readonly #reception: Reception;
  readonly #doors: Doors;
  readonly #abort = new AbortController();
  readonly #trace: TraceWriter | undefined;
  #host: XenHost | undefined;
  #store: XenStoreClient | undefined;
  #vbds: ServedVbds | undefined;
  #watchdog: Watchdog | undefined;
  #laneWatch: LaneWatch | undefined;
  #monitoring: Monitoring | undefined;
  #statusTimer: NodeJS.Timeout | undefined;
  /** Why the last vbd that failed did so. */
  #failure: Error | undefined;
  #isStopping = false;
  #hasPidFile = false;
  readonly #stop: Promise<Error | undefined>;
  #requestStop: (error?: Error) => void = () => undefined;

  constructor(options: ServeOptions) {
    this.#options = options;
    const log = createLogger(options.logLevel, process.stderr);
    this.#log = log;
    this.#supervisor = new Supervisor(process.env, (reason) => {
      const message = `the service manager cannot be told anything: ${reason}`;
      log.warn('not-notified', { reason }, message);
    });
    this.#orphans = new OrphanedChannels(this.#supervisor, log);
    this.#trace = options.trace === undefined ? undefined : openTrace(options.trace, log);
    const { limits, tls } = options;
    this.#tls = tls.mode === 'off' ? undefined : new TlsCredentials(tls);
    this.#reception = new Reception({
      connectionsMax: limits.connections,
      handshakeMs: limits.handshakeMs,
      negotiationLimits: { optionCount: limits.options, optionBytes: limits.optionBytes },
      tlsMode: tls.mode,
      tls: this.#tls,
      log,
      onChange: () => this.#changed(),
      onGone: () => this.#clientGone(),
    });
    this.#doors = new Doors(options, this.#reception, this.#orphans, log);
    this.#stop = new Promise((resolve) => {
      this.#requestStop = (error) => resolve(error);
    });
  }

  async run(): Promise<void> {
    const onSignal = (signal: NodeJS.Signals): void => this.#signalled(signal);
    const onHangUp = (): void => this.#reload();
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    process.on('SIGHUP', onHangUp);
    try {
      // Lanes are started by this thread and inherit it.
      const isIoFlusher = becomeIoFlusher();
      // What can fail without touching a vbd comes first.
      await this.#doors.open();
      this.#monitoring = await this.#openMonitoring();
      const { busyPollUs } = this.#options.use;
      this.#host = await openHost(this.#options, this.#log, busyPollUs);
      this.#store = new XenStoreClient(await this.#host.openXenStore());
      this.#vbds = await this.#attach(this.#host, this.#store);
      this.#tellMemory(this.#vbds, isIoFlusher);
      this.#ready(this.#vbds);
      const error = await this.#stop;
      if (error !== undefined) throw error;
    } catch (error) {
      // A signal during the start ends it without a complaint.
      if (!this.#abort.signal.aborted) throw error;
    } finally {
      await this.#shutDown();
      process.off('SIGTERM', onSignal);
      process.off('SIGINT', onSignal);
      process.off('SIGHUP', onHangUp);
    }
  }

  #signalled(signal: NodeJS.Signals): void {
    if (this.#isStopping) {
      if (!this.#orphans.mayExit) return;
      this.#removeFiles();
      exitNow(EXIT_SIGNALLED + (signal === 'SIGINT' ? 2 : 15));
    }
    this.#isStopping = true;
    this.#log.info('stopping', { signal }, `${signal}: stopping; a second signal is immediate`);
    this.#abort.abort();
    this.#requestStop();
  }

  /** SIGHUP: certificates and keys are read again, for clients that connect from now on. */
  #reload(): void {
    if (this.#tls === undefined) {
      this.#log.info('nothing-to-reload', {}, 'SIGHUP: there are no certificates to read again');
      return;
    }
    try {
      this.#tls.reload();
      this.#log.info('tls-reloaded', {}, 'SIGHUP: the TLS credentials were read again');
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      const message = `SIGHUP: the TLS credentials of before stay in use: ${error.message}`;
      this.#log.error('tls-not-reloaded', {}, message);
    }
  }

  // --- start

  async #openMonitoring(): Promise<Monitoring | undefined> {
    const { metrics, unixAccess } = this.#options;
    if (metrics === undefined) return undefined;
    return await Monitoring.open(
      { address: metrics, access: unixAccess, reception: this.#reception, log: this.#log },
      () => this.#vbds,
      () => this.#isStopping,
    );
  }

  async #attach(host: XenHost, store: XenStoreClient): Promise<ServedVbds> {
    const { simulate, vbds, exportName, isReadOnly, isTakenOver, use, limits } = this.#options;
    return await ServedVbds.open({
      host,
      store,
      wanted: vbds,
      exportName,
      isReadOnly,
      isTakenOver,
      takeOver: simulate === undefined ? new TakeOver(thisKernel, this.#log) : undefined,
      use,
      requestBytesMax: limits.requestBytes,
      traceLane: this.#trace?.addLane.bind(this.#trace),
      limits: {
        operationsPerConnection: limits.clientRequests,
        operations: limits.requests,
        bytesPerConnection: limits.clientBytes,
        bytes: limits.bytes,
        ownBytes: OWN_BYTES,
        spillBytes: limits.bufferBytes,
      },
      connectionsMax: limits.connections,
      log: this.#log,
      signal: this.#abort.signal,
      events: {
        clientLeft: (event) => this.#reception.left(event),
        orphaned: (channels) => {
          // The simulated host's can be closed like any descriptor.
          if (simulate === undefined) void this.#orphans.keep(channels.map(({ fd }) => fd));
        },
        changed: () => this.#changed(),
        ended: (device, end) => this.#deviceEnded(device, end),
        failed: (error) => this.#requestStop(error),
      },
    });
  }

  #tellMemory(vbds: ServedVbds, isIoFlusher: boolean): void {
    const summaries = vbds.devices.flatMap(({ summary }) => summary ?? []);
    const { details, message } = describeMemory(summaries, this.#options.limits, isIoFlusher);
    this.#log.info('memory', details, message);
  }

  #ready(vbds: ServedVbds): void {
    const { pidFile } = this.#options;
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
    this.#reception.open(vbds);
    this.#doors.announce(vbds);
    this.#trace?.start();
    this.#laneWatch = new LaneWatch({
      log: this.#log,
      vbds: () => vbds.devices.map(({ vbd, lanes }) => ({ name: vbd.name, lanes })),
    });
    this.#supervisor.ready(this.#status(vbds));
    const { watchdogMs } = this.#supervisor;
    if (watchdogMs === undefined) return;
    this.#watchdog = new Watchdog({
      timeoutMs: watchdogMs,
      lanes: () => vbds.devices.flatMap(({ lanes }) => lanes),
      onAlive: () => this.#supervisor.alive(),
      onStuck: () => {
        const message =
          'a lane has not moved since the last look: the service manager may restart us';
        this.#log.error('lane-stuck', {}, message);
      },
    });
  }

  // --- events

  #deviceEnded(device: VbdDevice, end: FrontendEnd): void {
    const { name } = device.vbd;
    if (end.reason === 'closed') return;
    if (end.reason === 'unplugged') {
      this.#log.warn('unplugged', { vbd: name }, `${name} was unplugged`);
    } else {
      this.#failure = end.error ?? new DaemonError(`${name} failed`);
      this.#log.error('vbd-failed', { vbd: name }, this.#failure.message);
    }
    const vbds = this.#vbds;
    if (vbds !== undefined && vbds.devices.length > 1) {
      // Why it ends may be what it has counted last.
      this.#laneWatch?.lookAtOnce();
      vbds.remove(device);
      this.#changed();
    } else {
      this.#requestStop(this.#failure);
    }
  }

  /** The one client of --stdio is the only reason to be there. */
  #clientGone(): void {
    if (this.#options.isStdio) this.#requestStop();
  }

  /** Tells the service manager, soon: many changes make one message. */
  #changed(): void {
    if (!this.#supervisor.isPresent || this.#statusTimer !== undefined) return;
    this.#statusTimer = setTimeout(() => {
      this.#statusTimer = undefined;
      if (this.#vbds !== undefined && !this.#isStopping) {
        this.#supervisor.status(this.#status(this.#vbds));
      }
    }, STATUS_MS);
  }

  #status(vbds: ServedVbds): string {
    return describeStatus(vbds.devices, this.#reception.clientCount);
  }

  // --- end

  async #shutDown(): Promise<void> {
    this.#isStopping = true;
    this.#supervisor.stopping();
    clearTimeout(this.#statusTimer);
    this.#watchdog?.stop();
    this.#doors.close();
    this.#reception.shutDown();
    await this.#reception.endInput(LAST_REQUESTS_MS);
    // Of the last flush of each disk its own line tells.
    this.#laneWatch?.stop();
    await this.#vbds?.close(DRAIN_MS);
    await this.#reception.close(LAST_WORDS_MS);
    await this.#trace?.close();
    this.#monitoring?.close();
    this.#removeFiles();
    await this.#store?.close();
    await this.#orphans.hold();
    await this.#host?.close();
    if (!this.#orphans.mayExit) await forEver();
  }

  #removeFiles(): void {
    const { pidFile } = this.#options;
    if (this.#hasPidFile && pidFile !== undefined) rmSync(pidFile, { force: true });
    this.#hasPidFile = false;
  }
}

function openTrace(path: string, log: Logger): TraceWriter {
  return new TraceWriter(path, {
    stopped: (reason) => {
      log.error('trace-stopped', { path, reason }, `nothing is traced any more: ${reason}`);
    },
  });
}

function forEver(): Promise<never> {
  return new Promise(() => {
    // A timer is what keeps the process alive.
    setInterval(() => undefined, 2 ** 30);
  });
}
