/** A daemon on the simulated host, for as long as somebody looks at it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DaemonError, type ListenAddress } from '../daemon/index.ts';

/** Starts `serve --simulate`, hands its metrics address to `look`, and ends it afterwards. */
export async function withSimulatedDaemon(
  program: string,
  disk: string,
  look: (address: ListenAddress) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'xenblk-nbd-top-'));
  const path = join(folder, 'metrics.sock');
  const sockets = ['--unix', join(folder, 'nbd.sock'), '--metrics', path];
  const args = [program, 'serve', '--simulate', disk, ...sockets, '--log-level', 'error'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
  });
  try {
    await ready(child, ended);
    await look({ kind: 'unix', path });
  } finally {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Waits for its `ready:` line. What is wrong it says itself on stderr. */
async function ready(child: ChildProcess, ended: Promise<void>): Promise<void> {
  const isReady = await Promise.race([
    new Promise<boolean>((resolve) => {
      child.stdout?.once('data', () => resolve(true));
    }),
    ended.then(() => false),
  ]);
  if (!isReady) throw new DaemonError('the simulated daemon did not start');
}
