/**
 * What `list`, `info` and `doctor` see on real Xen: who drives a vbd is told rightly through its
 * life (nobody, this program, a process that was killed, the kernel), nothing is changed by
 * looking, and the metrics are those of a real ring. Asked in this process: Node starts slowly.
 */
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import {
  type Check,
  describeGuestVbd,
  examine,
  type ListedVbd,
  listGuestVbds,
  withGuest,
} from '../../../../src/survey/index.ts';
import { fetchText } from '../../../monitor/http-text.ts';
import { NbdClient } from '../../../support/nbd-client.ts';
import { eventually } from '../commands.ts';
import { loadKernelFrontend } from '../kernel-frontend.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { createVbd, removeVbd, states, type Vbd } from '../vbd-fixture.ts';

const MIB = 1024 * 1024;
const GUEST = { vbds: [], simulate: undefined, simulateFeatures: undefined };
const USE = { queues: 1, ringPageOrder: undefined };

export const survey: Scenario = {
  name: 'list, info and doctor tell who drives a vbd through its life, and change nothing',
  run: followOneVbd,
};

async function listed(vbd: Vbd): Promise<ListedVbd> {
  const all = await withGuest(GUEST, listGuestVbds);
  const found = all.find(({ name }) => name === vbd.name);
  ok(found !== undefined, `${vbd.name} is in the list: ${JSON.stringify(all)}`);
  return found;
}

async function failures(vbd: Vbd): Promise<Check[]> {
  const checks = await examine({ ...GUEST, ...USE, vbds: [vbd.name], connections: 64 });
  return checks.filter(({ status }) => status === 'failed');
}

async function followOneVbd(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 8 * MIB });
  const fresh = await listed(vbd);
  deepStrictEqual(fresh.drivenBy, { kind: 'free' });
  strictEqual(fresh.backend.params, vbd.loopDevice);
  strictEqual(`${fresh.state}/${fresh.backend.state}`, 'Initialising/InitWait');
  deepStrictEqual(await failures(vbd), []);
  strictEqual(await states(vbd), '1/2', 'looking changes nothing');
  lab.step('a new vbd is free, and doctor finds nothing wrong');

  await whileServed(lab, vbd);
  deepStrictEqual((await listed(vbd)).drivenBy, { kind: 'left' });
  deepStrictEqual(await failures(vbd), [], 'the next start takes it as it is');
  const info = await withGuest(GUEST, (guest) => describeGuestVbd(guest, String(vbd.id), USE));
  strictEqual(info.disk?.sizeBytes, 8 * MIB);
  strictEqual(info.disk.flush, 'flush-cache');
  ok((info.offers?.maxIndirectSegments ?? 0) > 0, JSON.stringify(info));
  lab.step('after kill -9: left by a process that has ended; its backend has told of its disk');

  // The kernel would take it too, as it was left, and wait for its backend.
  await removeVbd(vbd);
  const taken = await createVbd(lab, { sizeBytes: MIB });
  await loadKernelFrontend(lab);
  const device = await eventually('the kernel drives it', 60_000, async () => {
    const { drivenBy } = await listed(taken);
    return drivenBy.kind === 'kernel' ? drivenBy.device : undefined;
  });
  strictEqual(device, taken.name);
  const [conflict] = await failures(taken);
  match(conflict?.mend ?? '', /serve xvd. --take-over/);
  lab.step(`with xen-blkfront: the kernel's ${device}`);
}

async function whileServed(lab: Lab, vbd: Vbd): Promise<void> {
  const socketPath = `/run/${vbd.name}.metrics`;
  const served = await serveVbd(lab, vbd, '--metrics', socketPath);
  const { client } = await NbdClient.open(served.address);
  await client.readOk(0, MIB);
  const { drivenBy, sizeBytes } = await listed(vbd);
  strictEqual(sizeBytes, 8 * MIB);
  ok(drivenBy.kind === 'process', JSON.stringify(drivenBy));
  match(drivenBy.claimant ?? '', new RegExp(`\\b${served.pid}\\b`));
  // Our own service is not in its own way.
  deepStrictEqual(await failures(vbd), []);
  const { body } = await fetchText({ socketPath }, '/metrics');
  const read = `xenblk_nbd_bytes_total{vbd="${vbd.name}",direction="read"} ${MIB}\n`;
  ok(body.includes(read), body);
  match(body, /^xenblk_nbd_ring_requests_total\{.*\} [1-9]/m);
  strictEqual((await fetchText({ socketPath }, '/healthz')).status, 200);
  lab.step(`while it is served: process ${served.pid}, and its metrics are those of the ring`);
  await served.kill();
}
