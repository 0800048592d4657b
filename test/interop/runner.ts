// Runs named cases one after the other and says of each whether it passed. A case that throws has
// failed; one whose programs are not installed is skipped with the reason, or counted as failed
// where skipping is not allowed.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDiskImage } from '../support/disk-image.ts';
import type { RunningServer, ServeOptions, ServerKind } from '../support/nbd-server.ts';
import { findProgram } from '../support/program.ts';

/** Which Debian package brings a program. */
const PACKAGE_OF: Readonly<Record<string, string>> = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  nbdsh: 'python3-libnbd',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  taskset: 'util-linux',
};

export interface InteropCase {
  /** What holds when the case passes. */
  readonly name: string;
  /** Programs the case drives. */
  readonly needs?: readonly string[];
  /** The case speaks of this server's own command line or promises, so it cannot run on others. */
  readonly isOurs?: true;
  /** Default 60 000. */
  readonly timeoutMs?: number;
  run(context: CaseContext): Promise<void>;
}

export interface RunOptions {
  readonly server: ServerKind;
  /** Shorter loads, for a run at the desk. */
  readonly isQuick: boolean;
  /** A missing program is a failure. */
  readonly isSkipFailure: boolean;
  /** Decides every random choice of the cases. */
  readonly seed: number;
}

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

/** What a case has at hand. Everything it started is stopped after it. */
export class CaseContext {
  readonly options: RunOptions;
  /** An empty folder of this case alone; removed afterwards. */
  readonly folder: string;
  readonly #servers: RunningServer[] = [];
  readonly #cleanups: (() => Promise<void> | void)[] = [];

  constructor(options: RunOptions, folder: string) {
    this.options = options;
    this.folder = folder;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A disk image with content that is not repeated anywhere in it. Returns its path. */
  image(sizeBytes: number, name = 'disk.raw'): string {
    const path = this.path(name);
    createDiskImage(path, sizeBytes, this.options.seed);
    return path;
  }

  /** Serves a file on a Unix socket until the end of the case. */
  async serve(
    file: string,
    options: Partial<Omit<ServeOptions, 'file'>> = {},
  ): Promise<RunningServer> {
    const unixPath = options.unixPath ?? this.path(`nbd${this.#servers.length}.sock`);
    const server = await this.options.server.start({ ...options, file, unixPath });
    this.#servers.push(server);
    return server;
  }

  /** Runs at the end of the case, whether it passed or not; the latest first. */
  atEnd(cleanup: () => Promise<void> | void): void {
    this.#cleanups.push(cleanup);
  }

  /** What the servers of this case printed, for a failure's report. */
  get serverOutput(): string {
    return this.#servers.map((server) => server.output).join('');
  }

  /** Stops what the case started. A server that does not end well fails the case. */
  async close(): Promise<void> {
    const failures: unknown[] = [];
    for (const cleanup of this.#cleanups.reverse()) {
      try {
        await cleanup();
      } catch (error) {
        failures.push(error);
      }
    }
    for (const server of this.#servers) {
      try {
        await server.stop();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}

function missingPrograms(interopCase: InteropCase, options: RunOptions): string[] {
  const needs = [...(interopCase.needs ?? []), ...options.server.needs];
  return needs.filter((program) => !findProgram(program));
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function printIndented(text: string): void {
  for (const line of text.trimEnd().split('\n')) print(`  # ${line}`);
}

function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const where = error.stack?.split('\n').find((line) => line.includes('/test/interop/'));
  const cause = error.cause ? `\ncaused by: ${describeError(error.cause)}` : '';
  return `${error.message}\n${where?.trim() ?? ''}${cause}`;
}

async function runBounded(interopCase: InteropCase, context: CaseContext): Promise<void> {
  const timeoutMs = interopCase.timeoutMs ?? 60_000;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`took longer than ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    await Promise.race([interopCase.run(context), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function runCase(interopCase: InteropCase, options: RunOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'xenblk-interop-'));
  const context = new CaseContext(options, folder);
  let failure: unknown;
  try {
    await runBounded(interopCase, context);
  } catch (error) {
    failure = error;
  }
  try {
    await context.close();
  } catch (error) {
    failure ??= error;
  }
  rmSync(folder, { recursive: true, force: true });
  if (failure !== undefined) {
    const output = context.serverOutput.trimEnd().split('\n').slice(-20).join('\n');
    throw new assert.AssertionError({
      message: `${describeError(failure)}\n--- the end of the server's output\n${output}`,
    });
  }
}

/** Runs the cases in order and prints a line for each. */
export async function runCases(
  cases: readonly InteropCase[],
  options: RunOptions,
): Promise<Totals> {
  const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
  for (const interopCase of cases) {
    const missing = missingPrograms(interopCase, options);
    if (missing.length > 0) {
      const packages = missing.map((program) => PACKAGE_OF[program] ?? program);
      const reason = `no ${missing.join(', ')}: apt-get install ${packages.join(' ')}`;
      if (options.isSkipFailure) {
        totals.failed++;
        print(`not ok - ${interopCase.name} (${reason})`);
      } else {
        totals.skipped++;
        print(`skip (${reason}) - ${interopCase.name}`);
      }
      continue;
    }
    const startMs = performance.now();
    const took = (): string => `${((performance.now() - startMs) / 1000).toFixed(1)} s`;
    try {
      await runCase(interopCase, options);
      totals.passed++;
      print(`ok - ${interopCase.name} (${took()})`);
    } catch (error) {
      totals.failed++;
      print(`not ok - ${interopCase.name} (${took()})`);
      printIndented(error instanceof Error ? error.message : String(error));
    }
  }
  return totals;
}
