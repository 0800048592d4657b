/** `xenblk-nbd serve`: its options, checked one by one. What they do is in src/daemon. */

import { Command, Option } from 'commander';
import {
  type ListenAddress,
  LOG_LEVELS,
  type LogLevel,
  NBD_PORT,
  parseSimulatedDisk,
  parseTcpAddress,
  parseUnixAddress,
  type SimulatedDisk,
  serve,
  UsageError,
} from '../daemon/index.ts';

interface Flags {
  readonly simulate?: SimulatedDisk;
  readonly simulateFeatures?: string;
  readonly simulateFaults?: string;
  readonly unix: readonly ListenAddress[];
  readonly listen: readonly ListenAddress[];
  readonly export?: string;
  readonly readOnly?: true;
  readonly queues?: number;
  readonly ringPageOrder?: number;
  readonly maxConnections: number;
  readonly logLevel: LogLevel;
  readonly pidFile?: string;
}

const EXPORT_NAME_BYTES_MAX = 4096;

export function serveCommand(): Command {
  return new Command('serve')
    .description('attach to a vbd and serve it over NBD, in the foreground')
    .argument(
      '[vbd]',
      "xvdb, /dev/xvdb, 51728, or the backend's params; default: the only free vbd",
    )
    .addOption(
      new Option(
        '--simulate <file|size>',
        'use the simulated Xen host: serve FILE, or a RAM disk of SIZE (64M, 2G)',
      ).argParser(parseSimulatedDisk),
    )
    .option('--simulate-features <list>', 'what the simulated backend offers')
    .option('--simulate-faults <list>', 'trouble that the simulated backend makes on purpose')
    .addOption(
      new Option('--unix <path>', 'listen on a Unix socket (repeatable)')
        .argParser(collect(parseUnixAddress))
        .default([], 'none'),
    )
    .addOption(
      new Option('--listen <host:port>', 'listen on TCP (repeatable)')
        .argParser(collect(parseTcpAddress))
        .default([], `127.0.0.1:${NBD_PORT} when no address is given`),
    )
    .addOption(
      new Option('--export <name>', "export name (default: the vbd's name)").argParser(exportName),
    )
    .option('--read-only', 'refuse writes')
    .addOption(
      new Option('--queues <n>', 'rings to use at most').argParser(wholeNumber('--queues', 1, 64)),
    )
    .addOption(
      new Option('--ring-page-order <n>', 'a ring has 2^N pages at most').argParser(
        wholeNumber('--ring-page-order', 0, 4),
      ),
    )
    .addOption(
      new Option('--max-connections <n>', 'clients at once')
        .argParser(wholeNumber('--max-connections', 1, 65536))
        .default(1024),
    )
    .addOption(
      new Option('--log-level <level>', 'least severe level that is logged')
        .choices([...LOG_LEVELS])
        .default('info'),
    )
    .option('--pid-file <path>', 'write the process id there once the server is ready')
    .action(async (vbd: string | undefined, flags: Flags) => {
      const listen = [...flags.unix, ...flags.listen];
      if (flags.simulate === undefined) {
        for (const name of ['simulateFeatures', 'simulateFaults'] as const) {
          if (flags[name] !== undefined) {
            const option = name === 'simulateFeatures' ? 'features' : 'faults';
            throw new UsageError(`--simulate-${option} needs --simulate FILE or SIZE`);
          }
        }
      }
      await serve({
        vbd,
        simulate: flags.simulate,
        simulateFeatures: flags.simulateFeatures,
        simulateFaults: flags.simulateFaults,
        listen: listen.length > 0 ? listen : [{ kind: 'tcp', host: '127.0.0.1', port: NBD_PORT }],
        exportName: flags.export,
        isReadOnly: flags.readOnly === true,
        queues: flags.queues,
        ringPageOrder: flags.ringPageOrder,
        maxConnections: flags.maxConnections,
        logLevel: flags.logLevel,
        pidFile: flags.pidFile,
      });
    });
}

function collect<T>(parse: (text: string) => T): (text: string, before: T[]) => T[] {
  return (text, before) => [...before, parse(text)];
}

function wholeNumber(option: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) {
      throw new UsageError(`${option} takes a whole number from ${least} to ${most}`);
    }
    return value;
  };
}

function exportName(text: string): string {
  const lengthBytes = Buffer.byteLength(text);
  if (lengthBytes > EXPORT_NAME_BYTES_MAX || text.includes('\0')) {
    throw new UsageError(`an export name has at most ${EXPORT_NAME_BYTES_MAX} bytes and no NUL`);
  }
  return text;
}
