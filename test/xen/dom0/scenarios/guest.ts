/**
 * The true shape: a PV guest whose vbd is served by dom0, with our daemon inside the guest.
 * Hot-plug, unplug, a checkpoint, and a save and restore under a verified load.
 */
import { ok, strictEqual } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { eventually, run } from '../commands.ts';
import { checkDetach } from '../detach-time.ts';
import { diskSpecification, GuestDomain, xl } from '../guest-domain.ts';
import type { Lab, Scenario } from '../scenario.ts';

export const guest: Scenario = {
  name: 'in a PV guest: hot-plug, unplug, checkpoint, save and restore under load',
  timeoutMs: 1_500_000,
  run: inGuest,
};

const BLOCK_BYTES = 4096;
const BLOCK_COUNT = 512;

/** A file of zeros behind a loop device. */
async function loopDisk(lab: Lab, name: string): Promise<{ file: string; loopDevice: string }> {
  const file = `/tmp/guest-${name}.img`;
  writeFileSync(file, '');
  truncateSync(file, BLOCK_BYTES * BLOCK_COUNT);
  const loopDevice = (await run('losetup', '--show', '-f', file)).trim();
  lab.cleanUp(async () => {
    await run('losetup', '-d', loopDevice);
    rmSync(file);
  });
  return { file, loopDevice };
}

async function inGuest(lab: Lab): Promise<void> {
  const first = await loopDisk(lab, 'xvda');
  const second = await loopDisk(lab, 'xvdb');
  const domain = await GuestDomain.create(lab, 'lab', [
    diskSpecification('xvda', first.loopDevice),
  ]);
  const { readyMs } = await domain.ask('serve', { vbd: 'xvda', options: [] });
  lab.step(`serve xvda in the guest: ready after ${readyMs} ms`);
  // Before the load, which leaves little of the guest's one processor to another start.
  await hotPlug(lab, domain, second.loopDevice, second.file);
  await domain.ask('startLoad', {
    vbd: 'xvda',
    blockBytes: BLOCK_BYTES,
    blockCount: BLOCK_COUNT,
    connections: 2,
    depth: 4,
  });
  await domain.waitForProgress(100);

  const saveFile = '/tmp/guest.save';
  lab.cleanUp(() => rmSync(saveFile, { force: true }));
  const before = await domain.ask('daemonState', { vbd: 'xvda' });
  await xl('save', '-c', domain.name, saveFile);
  await domain.waitForProgress(200);
  const afterCheckpoint = await domain.ask('daemonState', { vbd: 'xvda' });
  strictEqual(afterCheckpoint.connections, before.connections, 'a checkpoint changes nothing');
  lab.step('checkpoint (xl save -c): the load went on, on the same connection');

  const oldDomid = await domain.domid();
  await xl('save', domain.name, saveFile);
  const savedMs = Date.now();
  await xl('restore', saveFile);
  const newDomid = await domain.domid();
  ok(newDomid !== oldDomid);
  lab.step(
    `saved, and restored after ${Date.now() - savedMs} ms: domain ${oldDomid}, now ${newDomid}`,
  );
  await domain.waitForProgress(200);
  const afterRestore = await domain.ask('daemonState', { vbd: 'xvda' });
  strictEqual(afterRestore.connections, before.connections + 1);
  lab.step('the daemon connected anew and the load went on without an error');
  await checkKernel(lab, domain, 'after the restore');

  const { completed, sha256 } = await domain.ask('finishLoad', null);
  const digest = createHash('sha256').update(readFileSync(first.file)).digest('hex');
  strictEqual(digest, sha256, 'the backing file in dom0 holds what the guest was told');
  lab.step(`${completed} requests; the backing file in dom0 holds what was acknowledged`);

  strictEqual((await domain.ask('stop', { vbd: 'xvda' })).exit, 'exit code 0');
  await checkKernel(lab, domain, 'after the daemon has ended');
}

async function hotPlug(
  lab: Lab,
  domain: GuestDomain,
  loopDevice: string,
  file: string,
): Promise<void> {
  await xl('block-attach', domain.name, diskSpecification('xvdb', loopDevice));
  await domain.ask('serve', { vbd: 'xvdb', options: [] });
  await domain.ask('touch', { vbd: 'xvdb', fill: 0x5a });
  ok(
    readFileSync(file)
      .subarray(0, 4096)
      .every((byte) => byte === 0x5a),
  );
  const startMs = Date.now();
  await xl('block-detach', domain.name, 'xvdb');
  lab.step(`hot-plugged, served and written; xl block-detach took ${Date.now() - startMs} ms`);
  const state = await eventually('the daemon for xvdb ends', 120_000, async () => {
    const seen = await domain.ask('daemonState', { vbd: 'xvdb' });
    return seen.exit === null ? undefined : seen;
  });
  strictEqual(state.exit, 'exit code 0', state.log);
  checkDetach(lab, state.detachMs);
}

async function checkKernel(lab: Lab, domain: GuestDomain, when: string): Promise<void> {
  const { lines, trouble } = await domain.ask('kernelTrouble', null);
  strictEqual(trouble, null, when);
  lab.step(`${when}: ${lines} lines of the guest's kernel log, no BUG and no WARNING`);
}
