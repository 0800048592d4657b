// Runs real NBD clients, where they are installed.

import { spawn, spawnSync } from 'node:child_process';

/** What a program did. */
export interface Finished {
  readonly code: number | null;
  readonly output: string;
}

/** A reason to skip a test when one of the programs is missing, or false. */
export function missing(...programs: readonly string[]): string | false {
  const absent = programs.filter((name) => spawnSync('which', [name]).status !== 0);
  return absent.length > 0 && `${absent.join(', ')} not installed`;
}

/** Runs a program to its end; standard output and errors come together. */
export function run(
  program: string,
  args: readonly string[],
  options: { readonly input?: string; readonly timeoutMs?: number } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 20_000);
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk) => {
      output += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}
