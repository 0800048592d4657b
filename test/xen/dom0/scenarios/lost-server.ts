/**
 * A device that `nbd-device` keeps, while its server is away for some seconds under load: stopped
 * in good order, and killed with requests that it never answered. Whoever writes sees a pause: the
 * kernel sends what was not answered again, five seconds after the server's return at the latest.
 */
import { ok, strictEqual } from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, run } from '../commands.ts';
import { DeviceLoad, KeptDevice } from '../kept-device.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { type Served, serveVbd } from '../served-vbd.ts';
import { createVbd, states } from '../vbd-fixture.ts';

export const lostServer: Scenario = {
  name: 'the server of a kept NBD device is away under load: a pause, no error, nothing lost',
  timeoutMs: 600_000,
  run: loseServer,
};

const BLOCK_BYTES = 4096;
const BLOCK_COUNT = 512;
const WRITERS = 4;
const AWAY_MS = 3000;
/** How often the kernel looks at a request that was not answered. */
const LOOK_MS = 5_000;
/** Beside that, an emulated machine that shares its processor with others may need this long. */
const SLACK_MS = 25_000;

async function loseServer(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: BLOCK_BYTES * BLOCK_COUNT });
  let served = await serveVbd(lab, vbd);
  const device = await KeptDevice.start(lab, 1, served.socket);
  const shape = { blockBytes: BLOCK_BYTES, blockCount: BLOCK_COUNT, writers: WRITERS };
  const load = await DeviceLoad.start(device.path, shape);
  await load.waitForAll(5, 120_000);
  strictEqual(device.setting('io_timeout'), String(LOOK_MS));

  let losses = 0;
  /** `lose` makes the server go away; how long after its return every writer went on. */
  const away = async (
    what: string,
    lose: (served: Served) => Promise<unknown>,
  ): Promise<number> => {
    const lostMs = Date.now();
    await lose(served);
    await sleep(AWAY_MS);
    served = await serveVbd(lab, vbd);
    await device.waitForReturn(++losses);
    const backMs = Date.now();
    await load.waitForAll(1, 180_000);
    const pauseMs = Date.now() - backMs;
    lab.step(`${what}: away ${backMs - lostMs} ms, and all writers went on ${pauseMs} ms later`);
    await load.waitForAll(5, 120_000);
    return pauseMs;
  };

  await away('stopped in good order', (old) => old.stop());
  const pauseMs = await away('killed before it answered', async (old) => {
    process.kill(old.pid, 'SIGSTOP');
    // What it had answered arrives; what is then in flight was never answered.
    await sleep(1000);
    await eventually('requests wait', 60_000, () => device.requestsInFlight() > 0 || undefined);
    await old.kill();
  });
  ok(pauseMs <= LOOK_MS + SLACK_MS, `sent again only after ${pauseMs} ms`);
  lab.step((await run('sh', '-c', 'dmesg | grep nbd1 || true')).trim());

  await load.finish(vbd.file);
  lab.step(`${load.completed} writes, no error; the backing file holds what was acknowledged`);
  await device.stop();
  strictEqual(device.setting('io_timeout'), '30000', "the kernel's own again");
  await served.stop();
  strictEqual(await states(vbd), '6/6');
}
