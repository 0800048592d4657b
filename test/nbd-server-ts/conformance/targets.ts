// Other people's servers, started for comparison.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Target } from './dialogue.ts';

/** A server of somebody else in a process of its own. */
export interface ForeignServer {
  readonly target: Target;
  stop(): void;
}

/** How to start one. */
export interface ForeignKind {
  readonly name: string;
  readonly program: string;
  start(directory: string): Promise<ForeignServer>;
}

const SIZE = 1024 * 1024;

/** `exitCode`: of a program that is meant to go on in the background, once it has. */
async function waitForSocket(
  child: ChildProcess,
  path: string,
  exitCode: number | null = null,
): Promise<void> {
  for (let turn = 0; turn < 400 && child.exitCode === exitCode; turn += 1) {
    if (existsSync(path)) return;
    await sleep(10);
  }
  throw new Error(`${child.spawnfile} did not open ${path}`);
}

/** Some of them owe answers that never come. */
const PATIENCE_MS = 3000;

async function launch(
  program: string,
  args: readonly string[],
  target: Target & { readonly address: { readonly path: string } },
): Promise<ForeignServer> {
  let child: ChildProcess;
  const revive = async (): Promise<void> => {
    rmSync(target.address.path, { force: true });
    child = spawn(program, args, { stdio: 'ignore' });
    await waitForSocket(child, target.address.path);
  };
  await revive();
  const patienceMs = PATIENCE_MS;
  return { target: { ...target, patienceMs, revive }, stop: () => child.kill('SIGKILL') };
}

function makeDisk(directory: string): string {
  const disk = join(directory, 'disk');
  writeFileSync(disk, Buffer.alloc(SIZE));
  return disk;
}

/**
 * nbd-server goes to the background in any case: its only foreground mode serves one client. So its
 * pid file says which process it is.
 */
async function launchNbdServer(directory: string): Promise<ForeignServer> {
  const path = join(directory, 'nbd-server.sock');
  const [config, pidFile] = [join(directory, 'nbd-server.conf'), join(directory, 'pid')];
  writeFileSync(
    config,
    `[generic]\n  unixsock = ${path}\n  allowlist = true\n[disk]\n  exportname = ` +
      `${makeDisk(directory)}\n  flush = true\n  fua = true\n  trim = true\n`,
  );
  const child = spawn('nbd-server', ['-C', config, '-p', pidFile], { stdio: 'ignore' });
  await new Promise((resolve) => child.once('exit', resolve));
  await waitForSocket(child, path, 0);
  return {
    target: {
      address: { path },
      exportName: 'disk',
      sizeBytes: SIZE,
      unknownName: 'none such',
      patienceMs: PATIENCE_MS,
    },
    stop: () => {
      process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGTERM');
    },
  };
}

/** nbdkit's file plugin, qemu-nbd and nbd-server. */
export const FOREIGN_KINDS: readonly ForeignKind[] = [
  {
    name: 'nbdkit',
    program: 'nbdkit',
    start: (directory) => {
      const path = join(directory, 'nbdkit.sock');
      return launch('nbdkit', ['-f', '-U', path, 'file', makeDisk(directory)], {
        address: { path },
        exportName: '',
        sizeBytes: SIZE,
        unknownName: undefined,
      });
    },
  },
  {
    name: 'qemu-nbd',
    program: 'qemu-nbd',
    start: (directory) => {
      const path = join(directory, 'qemu.sock');
      const disk = makeDisk(directory);
      return launch('qemu-nbd', ['-f', 'raw', '-t', '-e', '16', '-k', path, '-x', 'disk', disk], {
        address: { path },
        exportName: 'disk',
        sizeBytes: SIZE,
        unknownName: 'no such export',
      });
    },
  },
  { name: 'nbd-server', program: 'nbd-server', start: launchNbdServer },
];
