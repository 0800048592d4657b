/** `xenblk-nbd nbd-device DEVICE`: a served disk as a block device of the kernel's. */

import { Command, Option } from 'commander';
import {
  createLogger,
  forPeople,
  LOG_LEVELS,
  type LogLevel,
  Supervisor,
  UsageError,
} from '../daemon/index.ts';
import { keepNbdDevice, openLinuxNbd } from '../nbd-device/index.ts';
import { exportName, wholeNumber } from './option-values.ts';

interface Flags {
  readonly unix: string;
  readonly export?: string;
  readonly wait: number;
  readonly logLevel: LogLevel;
}

/** 30 days: longer than anybody waits, and less than the kernel can count. */
const WAIT_SECONDS_MAX = 2_592_000;

export function nbdDeviceCommand(): Command {
  return new Command('nbd-device')
    .description('make a block device of this kernel of a served disk, and keep it connected')
    .argument('<device>', 'an NBD device of the kernel: /dev/nbd0', deviceIndex)
    .requiredOption('--unix <path>', 'the Unix socket of the server')
    .option('--export <name>', "an export by name (default: the server's first)", exportName)
    .addOption(
      new Option('--wait <seconds>', 'how long requests wait for a server before they fail')
        .argParser(wholeNumber('--wait', 1, WAIT_SECONDS_MAX))
        .default(WAIT_SECONDS_MAX, '30 days'),
    )
    .addOption(
      new Option('--log-level <level>', 'least severe level that is logged')
        .choices([...LOG_LEVELS])
        .default('info'),
    )
    .action(run);
}

function deviceIndex(text: string): number {
  const digits = /^(?:\/dev\/)?nbd(\d{1,4})$/.exec(text)?.[1];
  if (digits === undefined) {
    throw new UsageError(
      `${text} is no NBD device of the kernel: give /dev/nbd0, or another number`,
    );
  }
  return Number(digits);
}

async function run(index: number, flags: Flags): Promise<void> {
  const log = createLogger(flags.logLevel, process.stderr);
  const supervisor = new Supervisor(process.env, (reason) => {
    log.warn('not-notified', { reason }, `the service manager cannot be told anything: ${reason}`);
  });
  const abort = new AbortController();
  const onSignal = (): void => abort.abort();
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  try {
    await keepNbdDevice({
      index,
      socket: flags.unix,
      exportName: flags.export ?? '',
      waitSeconds: flags.wait,
      kernel: openLinuxNbd(),
      supervisor,
      log,
      signal: abort.signal,
      onReady: () => void process.stdout.write(`ready: /dev/nbd${index}\n`),
    });
  } catch (error) {
    throw forPeople(error);
  } finally {
    process.off('SIGTERM', onSignal);
    process.off('SIGINT', onSignal);
  }
}
