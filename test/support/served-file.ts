// A daemon on a simulated disk that is a file, for one test: started as its users start it, and
// gone with everything it made when the test ends.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test as TapTest } from 'tap';
import { Daemon } from './daemon.ts';
import { NbdClient } from './nbd-client.ts';

export const MIB: number = 1024 * 1024;

export interface ServedFile {
  readonly daemon: Daemon;
  readonly address: { readonly path: string };
  readonly file: string;
  readonly folder: string;
  /** A client in the transmission phase. */
  readonly open: () => Promise<NbdClient>;
}

/** Serves a fresh file of zeroes, with what `fill` does to it. */
export async function serveFile(
  t: TapTest,
  sizeBytes: number,
  args: readonly string[] = [],
  fill: (file: string) => void = () => undefined,
): Promise<ServedFile> {
  const folder = mkdtempSync(join(tmpdir(), 'xenblk-nbd-test-'));
  const file = join(folder, 'disk.img');
  writeFileSync(file, Buffer.alloc(sizeBytes));
  fill(file);
  const address = { path: join(folder, 'nbd.sock') };
  const daemon = await Daemon.start(['--simulate', file, '--unix', address.path, ...args]);
  t.teardown(async () => {
    if (daemon.result === undefined) daemon.kill('SIGKILL');
    await daemon.waitForEnd();
    rmSync(folder, { recursive: true });
  });
  const open = async () => (await NbdClient.open(address)).client;
  return { daemon, address, file, folder, open };
}
