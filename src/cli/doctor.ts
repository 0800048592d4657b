/** `xenblk-nbd doctor`: checks everything that `serve` needs; each failure says what mends it. */

import { Command, Option } from 'commander';
import { DaemonError, DEFAULT_LIMITS } from '../daemon/index.ts';
import { examine, formatChecks, summarise } from '../survey/index.ts';
import { addGuestOptions, type GuestFlags, guestChoice, print } from './guest-options.ts';
import { wholeNumber } from './option-values.ts';

interface Flags extends GuestFlags {
  readonly queues?: number;
  readonly ringPageOrder?: number;
  readonly maxConnections: number;
}

export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description('check devices, modules, permissions, limits; each failure says what mends it')
    .argument('[vbd...]', 'the vbds that are to be served; default: the only free vbd')
    .addOption(
      new Option('--queues <n>', 'as it will be given to `serve`').argParser(
        wholeNumber('--queues', 1, 64),
      ),
    )
    .addOption(
      new Option('--ring-page-order <n>', 'as it will be given to `serve`').argParser(
        wholeNumber('--ring-page-order', 0, 4),
      ),
    )
    .addOption(
      new Option('--max-connections <n>', 'as it will be given to `serve`')
        .argParser(wholeNumber('--max-connections', 1, 65_536))
        .default(DEFAULT_LIMITS.connections),
    );
  return addGuestOptions(command).action(run);
}

async function run(vbds: string[], flags: Flags): Promise<void> {
  const checks = await examine({
    ...guestChoice(vbds, flags),
    queues: flags.queues,
    ringPageOrder: flags.ringPageOrder,
    connections: flags.maxConnections,
  });
  print(checks, flags.json === true, formatChecks);
  const summary = summarise(checks);
  if (summary.status === 'failed') throw new DaemonError(`${summary.message}; ${summary.mend}`);
  if (flags.json !== true) process.stdout.write(`${summary.message}\n`);
}
