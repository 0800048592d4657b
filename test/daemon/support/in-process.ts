// The daemon's parts in this process, on a simulated host whose controls the test holds.
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { XenStoreClient } from 'xenstore-client';
import type { VbdUse } from '../../../src/daemon/device-options.ts';
import type { LogDetails, Logger } from '../../../src/daemon/log.ts';
import { Reception } from '../../../src/daemon/reception.ts';
import { DEFAULT_LIMITS, OWN_BYTES } from '../../../src/daemon/serve-options.ts';
import { ServedVbds } from '../../../src/daemon/served-vbds.ts';
import type { FrontendEnd } from '../../../src/frontend/index.ts';
import type { EventChannelHandle } from '../../../src/host/index.ts';
import {
  createSimulatedHost,
  type SimulatedControl,
  type SimulatedHostOptions,
} from '../../../src/sim/index.ts';
import { NbdClient } from '../../support/nbd-client.ts';
import { makeFolder } from './simulated.ts';

/** A line of the log. */
export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly event: string;
  readonly details: LogDetails;
  readonly message: string;
}

/** Keeps what is logged. */
export function recordingLog(): { readonly log: Logger; readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const at =
    (level: LogLine['level']) =>
    (event: string, details: LogDetails, message: string): void => {
      lines.push({ level, event, details, message });
    };
  const log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
  return { log, lines };
}

/** A daemon whose host can be made to fail. */
export interface InProcess {
  readonly control: SimulatedControl;
  readonly vbds: ServedVbds;
  readonly lines: readonly LogLine[];
  /** How vbds ended, in order. */
  readonly ends: readonly { readonly vbd: string; readonly end: FrontendEnd }[];
  readonly orphans: readonly EventChannelHandle[];
  readonly failures: readonly Error[];
  readonly open: (exportName?: string) => Promise<NbdClient>;
  /** Lines about `event`. */
  readonly logged: (event: string) => LogLine[];
  /** Ends it all but the host. Called after the test if it was not before. */
  readonly close: () => Promise<void>;
}

/** Starts a simulated host and serves all of its disks on a Unix socket. */
export async function startInProcess(
  t: Test,
  options: SimulatedHostOptions,
  use: Partial<VbdUse> = {},
  requestBytesMax: number = DEFAULT_LIMITS.requestBytes,
): Promise<InProcess> {
  const host = await createSimulatedHost(options);
  const store = new XenStoreClient(await host.openXenStore());
  const { log, lines } = recordingLog();
  const ends: { vbd: string; end: FrontendEnd }[] = [];
  const orphans: EventChannelHandle[] = [];
  const failures: Error[] = [];
  const reception = new Reception({
    connectionsMax: DEFAULT_LIMITS.connections,
    handshakeMs: DEFAULT_LIMITS.handshakeMs,
    negotiationLimits: {},
    tlsMode: 'off',
    tls: undefined,
    log,
    onChange: () => undefined,
    onGone: () => undefined,
  });
  const vbds = await ServedVbds.open({
    host,
    store,
    wanted: options.disks.map(({ vbd }) => vbd),
    exportName: undefined,
    isReadOnly: false,
    isTakenOver: false,
    takeOver: undefined,
    use: {
      queues: 1,
      ringPageOrder: undefined,
      reconnectTimeoutMs: Number.POSITIVE_INFINITY,
      isReturnAwaited: false,
      isSectorUnitTrusted: false,
      busyPollUs: 0,
      ...use,
    },
    requestBytesMax,
    limits: {
      operationsPerConnection: DEFAULT_LIMITS.clientRequests,
      operations: DEFAULT_LIMITS.requests,
      bytesPerConnection: DEFAULT_LIMITS.clientBytes,
      bytes: DEFAULT_LIMITS.bytes,
      ownBytes: OWN_BYTES,
      spillBytes: DEFAULT_LIMITS.bufferBytes,
    },
    connectionsMax: DEFAULT_LIMITS.connections,
    log,
    signal: new AbortController().signal,
    events: {
      clientLeft: (event) => reception.left(event),
      orphaned: (channels) => orphans.push(...channels),
      changed: () => undefined,
      ended: (device, end) => ends.push({ vbd: device.vbd.name, end }),
      failed: (error) => failures.push(error),
    },
  });
  reception.open(vbds);
  const path = join(makeFolder(t), 'nbd.sock');
  const server = createServer({ allowHalfOpen: true }, (socket) =>
    reception.arrived(socket, 'test'),
  );
  await new Promise<void>((resolve) => server.listen(path, resolve));
  let closed: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    server.close();
    reception.shutDown();
    await vbds.close(5000);
    await reception.close(1000);
    await store.close();
  };
  const close = (): Promise<void> => {
    closed ??= end();
    return closed;
  };
  t.teardown(async () => {
    await close();
    await host.close();
  });
  return {
    control: host.control,
    vbds,
    lines,
    ends,
    orphans,
    failures,
    open: async (exportName = '') => (await NbdClient.open({ path }, exportName)).client,
    logged: (event) => lines.filter((line) => line.event === event),
    close,
  };
}
