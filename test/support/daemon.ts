// The product as its users start it: `node build/bin/xenblk-nbd.js serve ...` in a process of its
// own, ready when it says so on stdout, stopped by SIGTERM with exit code 0.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import {
  BackgroundProgram,
  describeEnd,
  type ProgramOptions,
  type ProgramResult,
  runProgram,
} from './program.ts';

/** The compiled command; this file runs from build/test/support. */
export const XENBLK_NBD: string = fileURLToPath(
  new URL('../../bin/xenblk-nbd.js', import.meta.url),
);

/** A start takes about a second; a busy machine may need much longer. */
const READY_TIMEOUT_MS = 60_000;
/** The daemon bounds its own drain; this is beyond it. */
const STOP_TIMEOUT_MS = 60_000;

/** Runs the command to its end, for command lines that do not stay. */
export function runXenblkNbd(
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  return runProgram(process.execPath, [XENBLK_NBD, ...args], options);
}

/** A running `xenblk-nbd serve`. */
export class Daemon {
  readonly pid: number;
  /** The URI of each `ready:` line, in order. */
  readonly uris: readonly string[];
  readonly #program: BackgroundProgram;

  private constructor(program: BackgroundProgram, uris: readonly string[]) {
    this.#program = program;
    this.pid = program.pid;
    this.uris = uris;
  }

  /**
   * Starts `xenblk-nbd serve` and waits for one `ready:` line for each address in `args`.
   *
   * @param args what follows `serve` on the command line.
   * @param runner a command in front of node, such as `['taskset', '-c', '0']`.
   * @throws Error with everything the daemon printed, when it is not ready in time.
   */
  static async start(
    args: readonly string[],
    runner: readonly string[] = [],
    options: ProgramOptions = {},
  ): Promise<Daemon> {
    const addressCount = args.filter((arg) => /^--(unix|listen)(=|$)/.test(arg)).length;
    const commandLine = [...runner, process.execPath, XENBLK_NBD, 'serve', ...args];
    const [command = process.execPath, ...rest] = commandLine;
    const program = new BackgroundProgram(command, rest, options);
    const uris = await program
      .waitForOutput((stdout) => {
        const lines = [...stdout.matchAll(/^ready: (.*)\n/gm)].map((match) => match[1] ?? '');
        return lines.length >= Math.max(1, addressCount) ? lines : undefined;
      }, READY_TIMEOUT_MS)
      .catch((error: unknown) => {
        program.kill('SIGKILL');
        throw error;
      });
    return new Daemon(program, uris);
  }

  /** Everything printed so far: the log first, then stdout. */
  get output(): string {
    return this.#program.stderr + this.#program.stdout;
  }

  get log(): string {
    return this.#program.stderr;
  }

  /** Undefined while the daemon runs. */
  get result(): ProgramResult | undefined {
    return this.#program.result;
  }

  kill(signal: NodeJS.Signals): void {
    this.#program.kill(signal);
  }

  /** Waits until the daemon has ended by itself or by a signal sent before. */
  waitForEnd(timeoutMs: number = STOP_TIMEOUT_MS): Promise<ProgramResult> {
    return this.#program.waitForEnd(timeoutMs);
  }

  /**
   * Stops the daemon as a service manager does.
   *
   * @throws AssertionError when it had ended before, or does not end with exit code 0.
   */
  async stop(): Promise<void> {
    const early = this.#program.result;
    assert.ok(
      early === undefined,
      `the daemon ended by itself, ${early ? describeEnd(early) : ''}\n${this.output}`,
    );
    this.#program.kill('SIGTERM');
    const result = await this.#program.waitForEnd(STOP_TIMEOUT_MS);
    const end = describeEnd(result);
    assert.equal(end, 'exit code 0', `SIGTERM ended the daemon with ${end}\n${this.output}`);
  }
}
