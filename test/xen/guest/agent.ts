/**
 * Runs inside a guest of the lab as its only program: does what dom0 asks for by XenStore. It lives
 * through a save and a restore of the guest, as the daemon beside it does, so it takes the request
 * number, not the event, as the sign of something new.
 */
import { strictEqual } from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { XenStoreClient } from 'xenstore-client';
import { createLinuxHost } from '../../../src/xen/index.ts';
import { XENBLK_NBD } from '../../support/daemon.ts';
import { NbdClient } from '../../support/nbd-client.ts';
import { Errno } from '../../support/nbd-wire.ts';
import { BackgroundProgram, describeEnd } from '../../support/program.ts';
import { detachMsOf } from '../dom0/detach-time.ts';
import { VerifiedLoad } from '../dom0/verified-load.ts';
import { findTrouble } from '../lab/verdict.ts';
import {
  AGENT_PATH,
  type AgentCommands,
  type AgentRequest,
  type AgentResponse,
} from './protocol.ts';

type Handlers = {
  [Command in keyof AgentCommands]: (
    args: AgentCommands[Command]['args'],
  ) => Promise<AgentCommands[Command]['result']>;
};

const START_TIMEOUT_MS = 400_000;
const STOP_TIMEOUT_MS = 200_000;
/** On a guest that does other things as well, the agent must not be the busiest program. */
const { LAB_POLL_MS = '100' } = process.env;
/** A guest may write 2048 bytes into a node of XenStore; this leaves room for what is around it. */
const OUTPUT_JSON_BYTES = 1800;

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

const handlers: Handlers = {
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

  sh({ script }) {
    return new Promise((resolve) => {
      const options = { maxBuffer: 16 << 20 };
      execFile('sh', ['-c', `exec 2>&1 </dev/null\n${script}`], options, (error, stdout) => {
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ status, output: endOf(stdout.trim()) });
      });
    });
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

/** The end of a text, as much as an answer has room for, in plain ASCII. */
function endOf(text: string): string {
  let end = text.replace(/[^\n -~]/g, '?').slice(-OUTPUT_JSON_BYTES);
  while (JSON.stringify(end).length > OUTPUT_JSON_BYTES) end = end.slice(100);
  return end;
}

async function answer(request: AgentRequest): Promise<AgentResponse> {
  try {
    const handler = handlers[request.command] as (args: unknown) => Promise<unknown>;
    return { id: request.id, ok: true, result: await handler(request.args) };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return { id: request.id, ok: false, error: text.slice(-1500) };
  }
}

const store = new XenStoreClient(await createLinuxHost().openXenStore());
await store.write(`${AGENT_PATH}/ready`, '1');
console.log('agent: ready');
let lastId = 0;
for (;;) {
  // Asked for again and again rather than watched: the agent must not depend on what it tests.
  const text = await store.tryRead(`${AGENT_PATH}/request`).catch(() => undefined);
  const request = text === undefined ? undefined : (JSON.parse(text) as AgentRequest);
  if (request === undefined || request.id === lastId) {
    await sleep(Number(LAB_POLL_MS));
    continue;
  }
  lastId = request.id;
  console.log(`agent: ${request.command}`);
  const response = await answer(request);
  console.log(`agent: ${request.command} ${response.ok ? 'ok' : response.error}`);
  await store.write(`${AGENT_PATH}/response`, JSON.stringify(response));
}
