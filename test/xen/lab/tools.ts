// Running the programs of this machine that the lab needs.
import { execFileSync, spawnSync } from 'node:child_process';

/** A refusal for people: printed as one line, without a stack. */
export class LabError extends Error {
  override readonly name = 'LabError';
}

/** Programs the lab starts here, with the Debian package that brings each. */
const neededTools = [
  { tool: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86' },
  { tool: 'apt-get', debianPackage: 'apt' },
  { tool: 'apt-cache', debianPackage: 'apt' },
  { tool: 'dpkg', debianPackage: 'dpkg' },
  { tool: 'ldd', debianPackage: 'libc-bin' },
  { tool: 'xz', debianPackage: 'xz-utils' },
];

/** Fails with one line that names what is missing and the command that brings it. */
export function requireTools(): void {
  if (process.arch !== 'x64') {
    throw new LabError(`the Xen lab needs an x86-64 machine, this one is ${process.arch}`);
  }
  const missing = neededTools.filter(({ tool }) => spawnSync(tool, ['--version']).error);
  if (missing.length === 0) return;
  const names = missing.map(({ tool }) => tool).join(', ');
  const packages = [...new Set(missing.map(({ debianPackage }) => debianPackage))].join(' ');
  throw new LabError(
    `the Xen lab needs ${names}: apt-get install --no-install-recommends ${packages}`,
  );
}

/** What `program` prints; throws a {@link LabError} with its last words when it fails. */
export function run(program: string, args: string[], options: RunOptions = {}): string {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 64 << 20,
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
    });
  } catch (error) {
    const stderr = String((error as { stderr?: unknown }).stderr ?? error).trim();
    const lastLine = stderr.split('\n').at(-1) ?? '';
    throw new LabError(`${program} ${args.slice(0, 4).join(' ')}: ${lastLine}`, { cause: error });
  }
}

export interface RunOptions {
  cwd?: string;
  env?: Record<string, string>;
}
