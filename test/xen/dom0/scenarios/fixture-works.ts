// The ground the other scenarios stand on: Xen is there, and a vbd made by hand is offered.
import { ok, strictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { run } from '../commands.ts';
import type { Scenario } from '../scenario.ts';
import { storeRead } from '../store.ts';
import { createVbd, states } from '../vbd-fixture.ts';

export const fixtureWorks: Scenario = {
  name: 'this is Xen, and xen-blkback offers a vbd',
  async run(lab) {
    strictEqual(readFileSync('/sys/hypervisor/type', 'utf8').trim(), 'xen');
    const version = (await run('uname', '-r')).trim();
    lab.step(`dom0 of Xen 4.17, Linux ${version}, Node ${process.version}`);
    const vbd = await createVbd(lab, { sizeBytes: 16 << 20 });
    strictEqual(await states(vbd), '1/2');
    const order = await storeRead(`${vbd.backendPath}/max-ring-page-order`);
    ok(Number(order) >= 1, `max-ring-page-order is ${order}`);
    lab.step(`states 1/2, max-ring-page-order ${order}`);
  },
};
