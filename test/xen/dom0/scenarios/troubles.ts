/**
 * Backend trouble under a live load: each row of the table below is done to a vbd that is served to
 * clients with requests in flight. They must see a pause and nothing else, and the backing file
 * must hold what was acknowledged.
 */
import { ok, rejects, strictEqual } from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '../commands.ts';
import { checkDetach, detachMsOf } from '../detach-time.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { type Served, serveVbd } from '../served-vbd.ts';
import { storeRemove, storeWrite } from '../store.ts';
import {
  createVbd,
  plugVbd,
  states,
  unplugVbd,
  type Vbd,
  waitForBackendState,
} from '../vbd-fixture.ts';
import { VerifiedLoad } from '../verified-load.ts';

interface Trouble {
  readonly name: string;
  make(vbd: Vbd, lab: Lab, served: Served): Promise<void>;
}

const backendDriver = '/sys/bus/xen-backend/drivers/vbd';

const troubles: readonly Trouble[] = [
  {
    name: 'the backend is forced to Closing (5)',
    make: (vbd) => storeWrite({ [`${vbd.backendPath}/state`]: '5' }),
  },
  {
    name: 'the backend is forced to Closed (6)',
    make: (vbd) => storeWrite({ [`${vbd.backendPath}/state`]: '6' }),
  },
  {
    name: 'the vbd is detached, and attached again',
    async make(vbd, lab, served) {
      await unplugVbd(vbd);
      await served.waitForLog(/finishing -> absent/, 30_000);
      checkDetach(lab, detachMsOf(served.log));
      await plugVbd(vbd, 'w');
    },
  },
  {
    name: 'the vbd is removed by force, and attached again',
    async make(vbd) {
      await storeRemove(vbd.backendPath, vbd.frontendPath);
      await sleep(1000);
      await plugVbd(vbd, 'w');
    },
  },
  {
    name: "the backend's driver is unbound and bound",
    async make(vbd) {
      const name = `vbd-0-${vbd.id}`;
      writeFileSync(`${backendDriver}/unbind`, name);
      await sleep(1000);
      writeFileSync(`${backendDriver}/bind`, name);
    },
  },
  {
    name: "the backend's directory is deleted and made anew, the frontend's is kept",
    async make(vbd) {
      await storeRemove(vbd.backendPath);
      await sleep(1000);
      await plugVbd(vbd, 'w', 'backend-only');
    },
  },
];

export const backendTroubles: Scenario = {
  name: 'backend trouble under load: clients see a pause, never an error',
  timeoutMs: 600_000,
  run: trouble,
};

async function trouble(lab: Lab): Promise<void> {
  const blockBytes = 4096;
  const blockCount = 512;
  const vbd = await createVbd(lab, { sizeBytes: blockBytes * blockCount });
  const served = await serveVbd(lab, vbd, '--wait-for-return');
  const load = await VerifiedLoad.start({
    address: served.address,
    blockBytes,
    blockCount,
    connections: 2,
    depth: 8,
    seed: 1234,
  });
  await load.waitForProgress(50, 120_000);
  for (const row of troubles) {
    lab.step(row.name);
    const before = connectionsOf(served);
    const startMs = Date.now();
    await row.make(vbd, lab, served);
    await waitForBackendState(vbd, '4');
    await load.waitForProgress(100, 120_000);
    strictEqual(await states(vbd), '4/4');
    const recoveries = connectionsOf(served) - before;
    ok(recoveries >= 1, 'the daemon connected again');
    const count = recoveries === 1 ? 'one new connection' : `${recoveries} new connections`;
    lab.step(`        ${count}; 100 requests more after ${Date.now() - startMs} ms`);
  }
  await rejects(run('rmmod', 'xen-blkback'), /in use|busy|temporarily/i);
  await load.waitForProgress(50, 120_000);
  strictEqual(await states(vbd), '4/4');
  lab.step('the driver cannot be unloaded under a disk: refused by the kernel, and nothing stops');
  await load.finish(vbd.file);
  lab.step(`${load.completed} requests, no error; the backing file holds what was acknowledged`);
  await served.stop();
  strictEqual(await states(vbd), '6/6');
}

/** How often the daemon has connected to the vbd's backend. */
function connectionsOf(served: Served): number {
  return served.log.match(/: connected to /g)?.length ?? 0;
}
