// A daemon on a simulated disk, in a folder of its own, that ends with its test.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { Daemon } from '../../support/daemon.ts';
import { eventually } from '../../support/eventually.ts';
import { NbdClient } from '../../support/nbd-client.ts';

/** What the tests of a daemon have at hand. */
export interface Simulated {
  readonly daemon: Daemon;
  /** The Unix socket it listens on. */
  readonly socket: string;
  /** Connects and enters transmission. */
  readonly open: (exportName?: string) => Promise<NbdClient>;
}

/** An empty folder that is removed after the test. */
export function makeFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'xenblk-nbd-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts `serve --simulate SIZE --unix ...` with `args`; it is killed if the test leaves it. */
export async function startSimulated(
  t: Test,
  args: readonly string[] = [],
  size = '8M',
): Promise<Simulated> {
  const socket = join(makeFolder(t), 'nbd.sock');
  const daemon = await Daemon.start(['--simulate', size, '--unix', socket, ...args]);
  t.teardown(async () => {
    if (daemon.result === undefined) daemon.kill('SIGKILL');
    await daemon.waitForEnd();
  });
  const open = async (exportName = ''): Promise<NbdClient> =>
    (await NbdClient.open({ path: socket }, exportName)).client;
  return { daemon, socket, open };
}

/** Lines of the log that are about `event`, as objects. */
export function logged(log: string, event: string): Record<string, unknown>[] {
  return log
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => line['event'] === event);
}

/** The same, once there are `count` of them. */
export function loggedSoon(
  daemon: Daemon,
  event: string,
  count = 1,
): Promise<Record<string, unknown>[]> {
  return eventually(`${count} lines of the log about ${event}`, 30_000, () => {
    const lines = logged(daemon.log, event);
    return lines.length >= count ? lines : undefined;
  });
}
