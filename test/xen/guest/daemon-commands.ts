/** What the agent does with daemons of its own: starts, loads and watches them. */
import { strictEqual } from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { XENBLK_NBD } from '../../support/daemon.ts';
import { NbdClient } from '../../support/nbd-client.ts';
import { Errno } from '../../support/nbd-wire.ts';
import { BackgroundProgram, describeEnd } from '../../support/program.ts';
import { detachMsOf } from '../dom0/detach-time.ts';
import { VerifiedLoad } from '../dom0/verified-load.ts';
import { findTrouble } from '../lab/verdict.ts';
import type { AgentCommand, AgentHandlers } from './protocol.ts';

const START_TIMEOUT_MS = 400_000;
const STOP_TIMEOUT_MS = 200_000;

const daemons = new Map<string, BackgroundProgram>();
let load: VerifiedLoad | undefined;

function daemonOf(vbd: string): BackgroundProgram {
  const daemon = daemons.get(vbd);
  if (daemon === undefined) throw new Error(`no daemon serves ${vbd}`);
  return daemon;
}

function socketOf(vbd: string): { path: string } {
  return { path: `/run/${vbd}.sock` };
}

export const daemonCommands: AgentHandlers<Exclude<AgentCommand, 'sh'>> = {
  async serve({ vbd, options }) {
    const startMs = Date.now();
    const args = ['serve', vbd, '--unix', socketOf(vbd).path, '--log-level', 'debug', ...options];
    const daemon = new BackgroundProgram(process.execPath, [XENBLK_NBD, ...args]);
    daemons.set(vbd, daemon);
    const isReady = (stdout: string): true | undefined => stdout.includes('ready: ') || undefined;
    await daemon.waitForOutput(isReady, START_TIMEOUT_MS);
    return { readyMs: Date.now() - startMs };
  },

  async startLoad({ vbd, ...shape }) {
    load = await VerifiedLoad.start({ address: socketOf(vbd), seed: 4242, ...shape });
    return null;
  },

  async loadState() {
    return { completed: load?.completed ?? 0, failure: load?.failure?.message ?? null };
  },

  async finishLoad() {
    if (load === undefined) throw new Error('no load runs');
    await load.stop();
    return { completed: load.completed, sha256: load.disk.digest() };
  },

  async daemonState({ vbd }) {
    const { stderr, result } = daemonOf(vbd);
    const connections = stderr.match(/: connected to /g)?.length ?? 0;
    const exit = result === undefined ? null : describeEnd(result);
    const detachMs = exit === null ? null : detachMsOf(stderr);
    return { connections, exit, detachMs, log: stderr.slice(-1500) };
  },

  async stop({ vbd }) {
    const daemon = daemonOf(vbd);
    daemon.kill('SIGTERM');
    return { exit: describeEnd(await daemon.waitForEnd(STOP_TIMEOUT_MS)) };
  },

  async kernelTrouble() {
    const lines = execFileSync('dmesg', { encoding: 'utf8' }).split('\n');
    return { lines: lines.length, trouble: findTrouble(lines) ?? null };
  },

  async touch({ vbd, fill }) {
    const { client } = await NbdClient.open(socketOf(vbd));
    const block = Buffer.alloc(4096, fill);
    strictEqual((await client.write(0, block)).error, Errno.OK);
    strictEqual((await client.flush()).error, Errno.OK);
    strictEqual(Buffer.compare(await client.readOk(0, 4096), block), 0);
    await client.disconnect();
    return null;
  },
};
