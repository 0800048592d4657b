/** `xenblk-nbd take-over VBD...`: vbds from the kernel's driver, for a server that is not root. */

import { Command, Option } from 'commander';
import { createLogger, LOG_LEVELS, type LogLevel, takeFromKernel } from '../daemon/index.ts';

interface Flags {
  readonly logLevel: LogLevel;
}

export function takeOverCommand(): Command {
  return new Command('take-over')
    .description("detach the kernel's driver from vbds that nothing uses, for `serve` without root")
    .argument('<vbd...>', 'vbds by name, number or params')
    .addOption(
      new Option('--log-level <level>', 'least severe level that is logged')
        .choices([...LOG_LEVELS])
        .default('info'),
    )
    .action(run);
}

async function run(vbds: string[], flags: Flags): Promise<void> {
  await takeFromKernel(vbds, createLogger(flags.logLevel, process.stderr));
}
