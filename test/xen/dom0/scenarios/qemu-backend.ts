/**
 * The second back end, which offers less and does it from user space: QEMU's xen-block, which libxl
 * calls qdisk. It is what serves disk images.
 */
import { doesNotMatch, match, ok, strictEqual } from 'node:assert/strict';
import { NbdClient } from '../../../support/nbd-client.ts';
import { Errno, Flag } from '../../../support/nbd-wire.ts';
import { startQemu } from '../qemu-process.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { storeWrite } from '../store.ts';
import { createVbd, plugVbd, states, unplugVbd, waitForBackendState } from '../vbd-fixture.ts';
import { VerifiedLoad } from '../verified-load.ts';

export const qemuBackend: Scenario = {
  name: 'a disk of QEMU: verified load, forced closed, detached and attached under it',
  run: qemu,
};

async function qemu(lab: Lab): Promise<void> {
  const blockBytes = 8192;
  const blockCount = 256;
  await startQemu(lab);
  const vbd = await createVbd(lab, { sizeBytes: blockBytes * blockCount, backend: 'qemu' });
  const served = await serveVbd(lab, vbd, '--wait-for-return');
  match(served.log, /\/backend\/qdisk\//);
  const { client, description } = await NbdClient.open(served.address);
  strictEqual(description.sizeBytes, BigInt(blockBytes * blockCount));
  ok((description.flags & Flag.SEND_FLUSH) !== 0);
  strictEqual((await client.flush()).error, Errno.OK);
  await client.disconnect();

  const { address } = served;
  const load = await VerifiedLoad.start({
    address,
    blockBytes,
    blockCount,
    connections: 2,
    depth: 8,
    seed: 4711,
  });
  await load.waitForProgress(200, 120_000);
  lab.step('200 requests');
  await storeWrite({ [`${vbd.backendPath}/state`]: '5' });
  await waitForBackendState(vbd, '4');
  await load.waitForProgress(200, 120_000);
  lab.step('forced to Closing, connected again, 200 requests more');
  await unplugVbd(vbd);
  await plugVbd(vbd, 'w');
  await load.waitForProgress(200, 120_000);
  lab.step('detached, attached, 200 requests more');
  await load.finish(vbd.file);
  lab.step(`${load.completed} requests, no error; the backing file holds what was acknowledged`);
  await served.stop();
  strictEqual(await states(vbd), '6/6');
  doesNotMatch(served.log, /"level":50/, 'nothing to complain about');
}
