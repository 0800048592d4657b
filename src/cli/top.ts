/** `xenblk-nbd top [ADDRESS]`: a running daemon, live in the terminal. */

import { Command } from 'commander';
import { type ListenAddress, UsageError } from '../daemon/index.ts';
import { findDaemon, runTop, withSimulatedDaemon } from '../top/index.ts';

interface Flags {
  readonly json?: true;
  readonly simulate?: string;
}

export function topCommand(): Command {
  return new Command('top')
    .description('live view of a running daemon; without a terminal, one look at it')
    .argument(
      '[address]',
      'what `serve --metrics` was given, or the vbd of a unit; default: the only unit that runs',
    )
    .option('--json', 'print one look at it as JSON, for programs')
    .option('--simulate <file|size>', 'start a daemon on the simulated Xen host, and look at that')
    .action(run);
}

async function run(address: string | undefined, flags: Flags): Promise<void> {
  const show = (where: ListenAddress): Promise<void> =>
    runTop({
      address: where,
      isJson: flags.json === true,
      stdin: process.stdin,
      stdout: process.stdout,
      env: process.env,
    });
  if (flags.simulate === undefined) {
    await show(findDaemon(address));
    return;
  }
  if (address !== undefined) {
    throw new UsageError('--simulate starts a daemon of its own: leave out the address');
  }
  await withSimulatedDaemon(process.argv[1] ?? '', flags.simulate, show);
}
