// Child processes for tests: run a program to its end, or keep one in the background. Everything is
// bounded in time, and nothing outlives the test runner: what still runs when it exits is killed.
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** How a program ended, and everything it printed. */
export interface ProgramResult {
  /** Exit code, or null when a signal ended the program. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProgramOptions {
  /** The program is killed when it takes longer. Default 60 000. */
  readonly timeoutMs?: number;
  /** Written to the program's standard input, which is empty otherwise. */
  readonly input?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Debian keeps some of the programs where an ordinary user's PATH does not look. */
const EXTRA_PATH = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

/** Full path of a program, or undefined when it is not installed. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), ...EXTRA_PATH];
  for (const folder of folders) {
    if (folder === '') continue;
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

const running = new Set<ChildProcess>();
/** Servers that put themselves into the background, and so are no children of ours. */
const detached = new Set<number>();

/**
 * Kills `pid`, or the group `-pid`, when this process ends. The result is to be called once it has
 * ended by itself.
 */
export function killAtExit(pid: number): () => void {
  detached.add(pid);
  return () => {
    detached.delete(pid);
  };
}

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const pid of detached) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
});
// Without a handler these end the process without 'exit', and would leave servers behind.
for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.on(signal, () => process.exit(status));
}

/** A program in the background. Its output is collected from the first byte on. */
export class BackgroundProgram {
  readonly pid: number;
  /** Settles when the program has ended and its pipes are closed. Never rejects. */
  readonly ended: Promise<ProgramResult>;
  readonly #child: ChildProcess;
  readonly #commandLine: string;
  #stdout = '';
  #stderr = '';
  #result: ProgramResult | undefined;
  #onOutput: (() => void) | undefined;

  /** A program that does not exist ends with exit code 127. */
  constructor(command: string, args: readonly string[], options: ProgramOptions = {}) {
    this.#commandLine = [command, ...args].join(' ');
    // tap would load itself into every Node it sees started. What tests start runs as users run it:
    // env takes tap's NODE_OPTIONS away again, and becomes the program.
    const child = spawn('env', ['-u', 'NODE_OPTIONS', command, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
    });
    this.#child = child;
    running.add(child);
    child.stdout.setEncoding('utf8');
    child.stderr.setEncoding('utf8');
    child.stdout.on('data', (text: string) => {
      this.#stdout += text;
      this.#onOutput?.();
    });
    child.stderr.on('data', (text: string) => {
      this.#stderr += text;
      this.#onOutput?.();
    });
    // A program that ends without reading its input is no error of the test.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    let spawnError = '';
    child.on('error', (error) => {
      spawnError = error.message;
    });
    this.ended = new Promise((resolve) => {
      child.on('close', (status, signal) => {
        running.delete(child);
        const stderr = this.#stderr + spawnError;
        const result = { status, signal, stdout: this.#stdout, stderr };
        this.#result = result;
        resolve(result);
        this.#onOutput?.();
      });
    });
    this.pid = child.pid ?? 0;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Undefined while the program runs. */
  get result(): ProgramResult | undefined {
    return this.#result;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /**
   * Waits until `ready` returns a value for what was printed so far.
   *
   * @throws Error with the program's output, when it ends first or `timeoutMs` have passed.
   */
  async waitForOutput<T>(
    ready: (stdout: string, stderr: string) => T | undefined,
    timeoutMs: number,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const finish = (act: () => void): void => {
        clearTimeout(timer);
        this.#onOutput = undefined;
        act();
      };
      const look = (): void => {
        const value = ready(this.#stdout, this.#stderr);
        if (value !== undefined) finish(() => resolve(value));
        else if (this.#result) {
          const end = describeEnd(this.#result);
          finish(() => reject(this.#unready(end)));
        }
      };
      const timer = setTimeout(() => {
        finish(() => reject(this.#unready(`was not ready after ${timeoutMs} ms`)));
      }, timeoutMs);
      this.#onOutput = look;
      look();
    });
  }

  /** Waits for the end; kills the program when it does not come in time. */
  async waitForEnd(timeoutMs: number): Promise<ProgramResult> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#child.kill('SIGKILL');
    }, timeoutMs);
    const result = await this.ended;
    clearTimeout(timer);
    if (late) throw this.#unready(`did not end within ${timeoutMs} ms and was killed`);
    return result;
  }

  #unready(what: string): Error {
    const output = `${this.#stdout}${this.#stderr}`.trim();
    return new Error(`${this.#commandLine}: ${what}${output === '' ? '' : `\n${output}`}`);
  }
}

/** The words of a command line, for arguments that hold no spaces themselves. */
export function words(text: string): string[] {
  return text.split(' ');
}

/** `exit code 1` or `killed by SIGKILL`. */
export function describeEnd(result: ProgramResult): string {
  return result.signal ? `killed by ${result.signal}` : `exit code ${result.status}`;
}

/**
 * Runs a program to its end.
 *
 * @throws Error when it cannot be started or takes longer than `timeoutMs`.
 */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const program = new BackgroundProgram(command, args, options);
  return program.waitForEnd(options.timeoutMs ?? 60_000);
}

/**
 * Runs a program that must succeed.
 *
 * @throws Error with the whole command line and its output when the exit code is not 0.
 */
export async function mustRun(
  command: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  const result = await runProgram(command, args, options);
  if (result.status !== 0) {
    const output = `${result.stdout}${result.stderr}`.trim();
    throw new Error(`${[command, ...args].join(' ')}: ${describeEnd(result)}\n${output}`);
  }
  return result;
}
