/**
 * The command line. Exit codes: 0 ok, 1 failed, 2 usage. An error is one line on stderr that says
 * what happened and what to do; a stack trace only with `--log-level debug` or `trace`.
 */

import { Command, CommanderError } from 'commander';
import { DaemonError, packageVersion, UsageError } from '../daemon/index.ts';

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Runs one command; resolves to the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const program = await createProgram(args[0]);
  try {
    await program.parseAsync([...args], { from: 'user' });
    return EXIT_OK;
  } catch (error) {
    return report(error, args);
  }
}

/** Makes a command. Those that print what others take are given the whole command line. */
type MakeCommand = (program: Command) => Command;

/** By name, in the order of the help. */
const commands: Readonly<Record<string, () => Promise<MakeCommand>>> = {
  serve: async () => (await import('./serve.ts')).serveCommand,
  list: async () => (await import('./list.ts')).listCommand,
  info: async () => (await import('./info.ts')).infoCommand,
  doctor: async () => (await import('./doctor.ts')).doctorCommand,
  top: async () => (await import('./top.ts')).topCommand,
  trace: async () => (await import('./trace.ts')).traceCommand,
  'nbd-device': async () => (await import('./nbd-device.ts')).nbdDeviceCommand,
  'take-over': async () => (await import('./take-over.ts')).takeOverCommand,
  'install-units': async () => (await import('./install-units.ts')).installUnitsCommand,
  completion: async () => (await import('./completion.ts')).completionCommand,
  'man-page': async () => (await import('./man-page.ts')).manPageCommand,
};

const LOOK_AT_ALL: ReadonlySet<string> = new Set(['completion', 'man-page']);

/**
 * The command line, with the command `first` if there is such a one, and all of them otherwise.
 * What the others need is not loaded, which is most of the time that a command takes to start.
 */
export async function createProgram(first = ''): Promise<Command> {
  const program = new Command('xenblk-nbd')
    .description('Serve a Xen virtual block device (vbd) over NBD from userspace.')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
  const isEnough = Object.hasOwn(commands, first) && !LOOK_AT_ALL.has(first);
  for (const [name, load] of Object.entries(commands)) {
    if (isEnough && name !== first) continue;
    const make = await load();
    program.addCommand(make(program));
  }
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
