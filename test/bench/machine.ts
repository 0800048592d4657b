// What a reader of the figures has to know of where they come from.
import { cpus, release, totalmem } from 'node:os';
import { findProgram, runProgram } from '../support/program.ts';

export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cpuCount: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  /** First line that each program prints for --version. */
  readonly versions: Readonly<Record<string, string>>;
}

/** Programs that print no version for --version, and what they want instead. */
const VERSION_FLAG: Readonly<Record<string, string>> = { 'nbd-server': '-V' };

export async function describeMachine(programs: readonly string[]): Promise<Machine> {
  const versions: Record<string, string> = {};
  for (const program of programs) {
    const path = findProgram(program);
    if (!path) continue;
    const { stdout, stderr } = await runProgram(path, [VERSION_FLAG[program] ?? '--version']);
    const [line = ''] = `${stdout}${stderr}`.trim().split('\n');
    versions[program] = line;
  }
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model ?? 'unknown',
    cpuCount: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    // What follows the version names the one who built it.
    kernel: /^[\d.]+\d/.exec(release())?.[0] ?? 'unknown',
    node: process.version,
    versions,
  };
}
