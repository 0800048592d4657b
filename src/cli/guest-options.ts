/** Options of the commands that look at a guest: which guest, and how the answer is printed. */

import { type Command, Option } from 'commander';
import { parseSimulatedDisk, type SimulatedDisk, UsageError } from '../daemon/index.ts';
import type { GuestChoice } from '../survey/index.ts';

/** What {@link addGuestOptions} adds. */
export interface GuestFlags {
  readonly simulate?: SimulatedDisk;
  readonly simulateFeatures?: string;
  readonly json?: true;
}

/** Adds the options that choose the guest, and --json. */
export function addGuestOptions(command: Command): Command {
  return command
    .option('--json', 'print JSON, for programs')
    .addOption(
      new Option(
        '--simulate <file|size>',
        'look at the simulated Xen host, with FILE or a RAM disk of SIZE (64M, 2G) for each vbd',
      ).argParser(parseSimulatedDisk),
    )
    .option('--simulate-features <list>', 'what the simulated backend offers');
}

/** The guest that the options mean; `vbds` are those that a simulated one has. */
export function guestChoice(vbds: readonly string[], flags: GuestFlags): GuestChoice {
  if (flags.simulate === undefined && flags.simulateFeatures !== undefined) {
    throw new UsageError('--simulate-features needs --simulate FILE or SIZE');
  }
  if (flags.simulate?.kind === 'file' && vbds.length > 1) {
    throw new UsageError('--simulate FILE is the disk of one vbd: give a SIZE for several');
  }
  return { vbds, simulate: flags.simulate, simulateFeatures: flags.simulateFeatures };
}

/** Prints what a command found: JSON for programs, or text that `format` makes. */
export function print<T>(value: T, isJson: boolean, format: (value: T) => string): void {
  process.stdout.write(isJson ? `${JSON.stringify(value, null, 2)}\n` : format(value));
}
