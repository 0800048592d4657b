/** `xenblk-nbd serve`: its options, checked one by one. What they do is in src/daemon. */

import { Command, Option } from 'commander';
import {
  DEFAULT_LIMITS,
  type ListenAddress,
  LOG_LEVELS,
  type LogLevel,
  NBD_PORT,
  PRIVATE_ACCESS,
  parseMetricsAddress,
  parseServeAddress,
  parseSimulatedDisk,
  parseUnixAddress,
  parseUnixMode,
  parseUnixOwner,
  type ServeAddress,
  type SimulatedDisk,
  serve,
  type TlsOptions,
  UsageError,
} from '../daemon/index.ts';
import { collect, exportName, seconds, size, wholeNumber } from './option-values.ts';

interface Flags {
  readonly simulate?: SimulatedDisk;
  readonly simulateFeatures?: string;
  readonly simulateFaults?: string;
  readonly unix: readonly ListenAddress[];
  readonly listen: readonly ServeAddress[];
  readonly stdio?: true;
  readonly unixMode: number;
  readonly unixOwner?: string;
  readonly tcpKeepalive: number;
  readonly export?: string;
  readonly readOnly?: true;
  readonly takeOver?: true;
  readonly reconnectTimeout: number;
  readonly waitForReturn?: true;
  readonly sectorUnit?: string;
  readonly queues?: number;
  readonly ringPageOrder?: number;
  readonly busyPoll: number;
  readonly tls?: TlsOptions['mode'];
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly tlsPsk?: string;
  readonly metrics?: ListenAddress;
  readonly trace?: string;
  readonly maxConnections: number;
  readonly maxClientRequests: number;
  readonly maxRequests: number;
  readonly maxRequestSize: number;
  readonly maxClientBytes: number;
  readonly maxBytes: number;
  readonly bufferMemory: number;
  readonly handshakeTimeout: number;
  readonly maxOptions: number;
  readonly maxOptionSize: number;
  readonly logLevel: LogLevel;
  readonly pidFile?: string;
}

const DAY_SECONDS = 86_400;
/** Longer than a small request takes, shorter than anyone would miss. */
const DEFAULT_BUSY_POLL_US = 100;

export function serveCommand(): Command {
  const command = new Command('serve')
    .description('attach to vbds and serve them over NBD, in the foreground')
    .argument(
      '[vbd...]',
      "xvdb, /dev/xvdb, 51728, or the backend's params; default: the only free vbd",
    );
  addDiskOptions(command);
  addListenOptions(command);
  addTlsOptions(command);
  addLimitOptions(command);
  return command
    .addOption(
      option(
        '--metrics <host:port|path>',
        'where metrics, /healthz and a live status page are, on TCP or a Unix socket',
        parseMetricsAddress,
      ),
    )
    .option('--trace <file>', 'record each request, to be read with `xenblk-nbd trace`')
    .addOption(
      new Option('--log-level <level>', 'least severe level that is logged')
        .choices([...LOG_LEVELS])
        .default('info'),
    )
    .option('--pid-file <path>', 'write the process id there once the server is ready')
    .action(run);
}

function option<T>(flags: string, text: string, parse: (value: string) => T): Option {
  return new Option(flags, text).argParser(parse);
}

function addDiskOptions(command: Command): void {
  command
    .addOption(
      option(
        '--simulate <file|size>',
        'use the simulated Xen host: serve FILE, or a RAM disk of SIZE (64M, 2G) for each vbd',
        parseSimulatedDisk,
      ),
    )
    .option('--simulate-features <list>', 'what the simulated backend offers')
    .option('--simulate-faults <list>', 'trouble that the simulated backend makes on purpose')
    .addOption(option('--export <name>', "export name (default: the vbd's name)", exportName))
    .option('--read-only', 'refuse writes')
    .option('--take-over', "detach the kernel's driver from the vbds first, if nothing uses them")
    .addOption(
      option(
        '--reconnect-timeout <seconds>',
        'how long clients wait for a lost backend',
        seconds('--reconnect-timeout', 0, 365 * DAY_SECONDS),
      ).default(Number.POSITIVE_INFINITY, 'for ever'),
    )
    .option('--wait-for-return', 'wait for an unplugged vbd to come back, instead of ending')
    .addOption(
      new Option(
        '--sector-unit <bytes>',
        'vouch that the backend counts in units of 512 bytes, where backends differ',
      ).choices(['512']),
    )
    .addOption(
      option(
        '--queues <n>',
        'rings to use at most; by default one for each core, as far as granted pages go',
        wholeNumber('--queues', 1, 64),
      ),
    )
    .addOption(
      option(
        '--ring-page-order <n>',
        'a ring has 2^N pages at most',
        wholeNumber('--ring-page-order', 0, 4),
      ),
    )
    .addOption(
      option(
        '--busy-poll <us>',
        'microseconds to look for more work before sleeping, while that pays; 0 for never',
        wholeNumber('--busy-poll', 0, 10_000),
      ).default(DEFAULT_BUSY_POLL_US),
    );
}

function addListenOptions(command: Command): void {
  command
    .addOption(
      new Option('--unix <path>', 'listen on a Unix socket (repeatable)')
        .argParser(collect(parseUnixAddress))
        .default([], 'none'),
    )
    .addOption(
      new Option('--listen <host:port>', 'listen on TCP, or on vsock:PORT (repeatable)')
        .argParser(collect(parseServeAddress))
        .default([], `127.0.0.1:${NBD_PORT} when there is no other way in`),
    )
    .option('--stdio', 'serve one client on standard input and output')
    .addOption(
      option('--unix-mode <octal>', 'permissions of Unix sockets', parseUnixMode).default(
        PRIVATE_ACCESS.mode,
        '600',
      ),
    )
    .addOption(
      option(
        '--unix-owner <user:group>',
        'owner of Unix sockets, either part alone as well',
        parseUnixOwner,
      ),
    )
    .addOption(
      option(
        '--tcp-keepalive <seconds>',
        'silence after which a TCP client is asked whether it is there; 0 for never',
        seconds('--tcp-keepalive', 0, DAY_SECONDS),
      ).default(60_000, '60'),
    );
}

function addTlsOptions(command: Command): void {
  command
    .addOption(
      new Option('--tls <mode>', 'whether clients may, or must, use TLS').choices([
        'off',
        'allow',
        'require',
      ]),
    )
    .option('--tls-cert <file>', "the server's certificate and its chain, PEM")
    .option('--tls-key <file>', 'the key of that certificate, PEM')
    .option('--tls-ca <file>', 'clients must show a certificate of these authorities, PEM')
    .option('--tls-psk <file>', 'pre-shared keys instead of certificates: lines of USER:HEXKEY');
}

function addLimitOptions(command: Command): void {
  const limits = DEFAULT_LIMITS;
  const number = (flags: string, text: string, most: number, value: number): Option => {
    const name = flags.split(' ')[0] ?? flags;
    return option(flags, text, wholeNumber(name, 1, most)).default(value);
  };
  command
    .addOption(number('--max-connections <n>', 'clients at once', 65_536, limits.connections))
    .addOption(
      number('--max-requests <n>', 'requests in progress in one ring', 65_536, limits.requests),
    )
    .addOption(
      number(
        '--max-client-requests <n>',
        'requests in progress of one client',
        65_536,
        limits.clientRequests,
      ),
    )
    .addOption(
      option(
        '--max-request-size <size>',
        'bytes of one read or write',
        size('--max-request-size', '64K', '1G'),
      ).default(limits.requestBytes, '64M'),
    )
    .addOption(
      option(
        '--max-client-bytes <size>',
        'bytes of reads and writes in progress of one client; a larger one goes by itself',
        size('--max-client-bytes', '4K', '16G'),
      ).default(limits.clientBytes, '64M'),
    )
    .addOption(
      option(
        '--max-bytes <size>',
        'bytes of reads and writes in progress in one ring, besides 256K of each client',
        size('--max-bytes', '4K', '64G'),
      ).default(limits.bytes, '256M'),
    )
    .addOption(
      option(
        '--buffer-memory <size>',
        'memory of a ring for reads that need more than its granted pages',
        size('--buffer-memory', '0', '16G'),
      ).default(limits.bufferBytes, '64M'),
    )
    .addOption(
      option(
        '--handshake-timeout <seconds>',
        'time for the handshake of a client',
        seconds('--handshake-timeout', 0.001, 3600),
      ).default(limits.handshakeMs, '10'),
    )
    .addOption(number('--max-options <n>', 'options in one handshake', 65_536, limits.options))
    .addOption(
      option(
        '--max-option-size <size>',
        'bytes of one option',
        size('--max-option-size', '512', '1M'),
      ).default(limits.optionBytes, '64K'),
    );
}

async function run(vbds: string[], flags: Flags): Promise<void> {
  checkCombination(vbds, flags);
  await serve({
    vbds,
    use: {
      queues: flags.queues,
      ringPageOrder: flags.ringPageOrder,
      reconnectTimeoutMs: flags.reconnectTimeout,
      busyPollUs: flags.busyPoll,
      isReturnAwaited: flags.waitForReturn === true,
      isSectorUnitTrusted: flags.sectorUnit !== undefined,
    },
    isTakenOver: flags.takeOver === true,
    simulate: flags.simulate,
    simulateFeatures: flags.simulateFeatures,
    simulateFaults: flags.simulateFaults,
    listen: [...flags.unix, ...flags.listen],
    isStdio: flags.stdio === true,
    unixAccess: { mode: flags.unixMode, owner: flags.unixOwner },
    keepAliveMs: flags.tcpKeepalive,
    tls: tlsOptions(flags),
    metrics: flags.metrics,
    trace: flags.trace,
    exportName: flags.export,
    isReadOnly: flags.readOnly === true,
    limits: {
      connections: flags.maxConnections,
      handshakeMs: flags.handshakeTimeout,
      options: flags.maxOptions,
      optionBytes: flags.maxOptionSize,
      requestBytes: flags.maxRequestSize,
      clientRequests: flags.maxClientRequests,
      clientBytes: flags.maxClientBytes,
      bytes: flags.maxBytes,
      requests: flags.maxRequests,
      bufferBytes: flags.bufferMemory,
    },
    logLevel: flags.logLevel,
    pidFile: flags.pidFile,
  });
}

/** Options that each are right, and together make no sense. @throws UsageError */
function checkCombination(vbds: readonly string[], flags: Flags): void {
  const { simulate, simulateFeatures, simulateFaults, stdio, unix, listen, takeOver } = flags;
  if (simulate === undefined && simulateFeatures !== undefined) {
    throw new UsageError('--simulate-features needs --simulate FILE or SIZE');
  }
  if (simulate === undefined && simulateFaults !== undefined) {
    throw new UsageError('--simulate-faults needs --simulate FILE or SIZE');
  }
  if (simulate?.kind === 'file' && vbds.length > 1) {
    throw new UsageError('--simulate FILE is the disk of one vbd: give a SIZE for several');
  }
  if (simulate !== undefined && takeOver === true) {
    throw new UsageError(
      "--take-over detaches the kernel's driver, which has no simulated vbd: leave out one of " +
        '--take-over and --simulate',
    );
  }
  if (flags.export !== undefined && vbds.length > 1) {
    throw new UsageError('--export names the export of a single vbd: leave it out for several');
  }
  if (stdio === true && unix.length + listen.length > 0) {
    throw new UsageError('--stdio serves one client and listens nowhere: leave out the addresses');
  }
}

/** Where credentials are given, TLS is required unless told otherwise. @throws UsageError */
function tlsOptions(flags: Flags): TlsOptions {
  const { tls, tlsCert, tlsKey, tlsCa, tlsPsk } = flags;
  const hasCredentials = [tlsCert, tlsKey, tlsCa, tlsPsk].some((file) => file !== undefined);
  const mode = tls ?? (hasCredentials ? 'require' : 'off');
  if (mode === 'off' && hasCredentials) {
    throw new UsageError('--tls off uses no certificates and no keys: leave them out');
  }
  if (mode !== 'off' && tlsPsk === undefined && (tlsCert === undefined || tlsKey === undefined)) {
    throw new UsageError('TLS needs --tls-cert and --tls-key, or --tls-psk');
  }
  if (tlsPsk !== undefined && [tlsCert, tlsKey, tlsCa].some((file) => file !== undefined)) {
    throw new UsageError('--tls-psk takes the place of certificates: leave out one of the two');
  }
  return { mode, certFile: tlsCert, keyFile: tlsKey, caFile: tlsCa, pskFile: tlsPsk };
}
