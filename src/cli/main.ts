/**
 * The command line. Exit codes: 0 ok, 1 failed, 2 usage. An error is one line on stderr that says
 * what happened and what to do; a stack trace only with `--log-level debug` or `trace`.
 */

import { Command, CommanderError } from 'commander';
import { DaemonError, packageVersion, UsageError } from '../daemon/index.ts';
import { completionCommand } from './completion.ts';
import { doctorCommand } from './doctor.ts';
import { infoCommand } from './info.ts';
import { installUnitsCommand } from './install-units.ts';
import { listCommand } from './list.ts';
import { manPageCommand } from './man-page.ts';
import { nbdDeviceCommand } from './nbd-device.ts';
import { serveCommand } from './serve.ts';
import { takeOverCommand } from './take-over.ts';
import { topCommand } from './top.ts';
import { traceCommand } from './trace.ts';

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Runs one command; resolves to the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const program = createProgram();
  try {
    await program.parseAsync([...args], { from: 'user' });
    return EXIT_OK;
  } catch (error) {
    return report(error, args);
  }
}

/** The whole command line. */
export function createProgram(): Command {
  const program = new Command('xenblk-nbd')
    .description('Serve a Xen virtual block device (vbd) over NBD from userspace.')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .addCommand(serveCommand())
    .addCommand(listCommand())
    .addCommand(infoCommand())
    .addCommand(doctorCommand())
    .addCommand(topCommand())
    .addCommand(traceCommand())
    .addCommand(nbdDeviceCommand())
    .addCommand(takeOverCommand())
    .addCommand(installUnitsCommand());
  program.addCommand(completionCommand(program)).addCommand(manPageCommand(program));
  for (const command of program.commands) {
    command.exitOverride().configureOutput({ outputError: () => undefined });
  }
  return program;
}

function report(error: unknown, args: readonly string[]): number {
  if (error instanceof CommanderError) {
    // --help and --version end in an "error" of code 0; their text has been printed.
    if (error.exitCode === 0) return EXIT_OK;
    const message = error.message
      .replace(/^error: /, '')
      .replace(/\.$/, '')
      .replaceAll('\n', ' ');
    if (error.code === 'commander.help') printError('say what to do; see `xenblk-nbd --help`');
    else printError(`${message}; see \`xenblk-nbd --help\``);
    return EXIT_USAGE;
  }
  const wantsTrace = /--log-level[ =](?:debug|trace)\b/.test(args.join(' '));
  printError(error instanceof Error ? error.message : String(error));
  if (error instanceof Error && (wantsTrace || !isExpected(error))) {
    process.stderr.write(`${error.stack ?? ''}\n`);
  }
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILED;
}

/** An error whose sentence tells people all they need; others are bugs and keep their stack. */
function isExpected(error: Error): boolean {
  return error instanceof DaemonError || error instanceof UsageError;
}

function printError(message: string): void {
  process.stderr.write(`xenblk-nbd: ${message}\n`);
}
