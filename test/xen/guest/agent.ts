/**
 * Runs inside a guest of the lab as its only program: does what dom0 asks for by XenStore. It lives
 * through a save and a restore of the guest, as the daemon beside it does, so it takes the request
 * number, not the event, as the sign of something new.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { XenStoreClient } from 'xenstore-client';
import { createLinuxHost } from '../../../src/xen/index.ts';
import {
  AGENT_PATH,
  type AgentCommand,
  type AgentRequest,
  type AgentResponse,
} from './protocol.ts';
import { runScript } from './run-script.ts';

/** On a guest that does other things as well, the agent must not be the busiest program. */
const { LAB_POLL_MS = '100' } = process.env;

/** Commands that start nothing of ours need none of it either: it takes seconds to load. */
async function handlerFor(command: AgentCommand): Promise<(args: never) => Promise<unknown>> {
  if (command === 'sh') return runScript;
  return (await import('./daemon-commands.ts')).daemonCommands[command];
}

async function answer(request: AgentRequest): Promise<AgentResponse> {
  try {
    const handler = (await handlerFor(request.command)) as (args: unknown) => Promise<unknown>;
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
