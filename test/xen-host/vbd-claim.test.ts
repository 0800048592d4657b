/**
 * Goal: a vbd is claimed by one process at a time, and a claim ends with its process.
 * Method: the real host on a folder with files in the place of devices; the kernel's locks are the
 * same on those.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import t from 'tap';
import { createLinuxHost } from '../../src/xen/index.ts';
import { eventually } from '../support/eventually.ts';
import { fakeMachine } from './fake-machine.ts';

const FILES = { 'dev/xen/gntalloc': '' };
const XVDB = 51728;
const XVDC = 51744;

void t.test('one claim at a time, for each vbd', async (t) => {
  const machine = { ...fakeMachine(t, FILES), proc: '/proc' };
  const [one, other] = [createLinuxHost(machine), createLinuxHost(machine)];
  const openFiles = readdirSync('/proc/self/fd').length;
  t.equal(one.vbdClaimant(XVDB), undefined);
  const claim = one.claimVbd(XVDB);
  t.ok(claim);
  t.equal(other.claimVbd(XVDB), undefined);
  t.equal(one.claimVbd(XVDB), undefined, 'not twice in one process either');
  t.equal(other.vbdClaimant(XVDB), `another xenblk-nbd (process ${process.pid})`);
  t.equal(other.vbdClaimant(XVDC), undefined);
  const second = other.claimVbd(XVDC);
  t.ok(second, 'another vbd is free');
  claim?.release();
  t.equal(other.vbdClaimant(XVDB), undefined);
  const again = other.claimVbd(XVDB);
  t.ok(again, 'free again');
  again?.release();
  second?.release();
  t.equal(readdirSync('/proc/self/fd').length, openFiles, 'no descriptor is left');
  await one.close();
  await other.close();
});

void t.test('kill -9 ends a claim', async (t) => {
  const machine = { ...fakeMachine(t, FILES), proc: '/proc' };
  const host = createLinuxHost(machine);
  const script = `
    import { createLinuxHost } from ${JSON.stringify(import.meta.resolve('../../src/xen/index.js'))};
    createLinuxHost(${JSON.stringify(machine)}).claimVbd(${XVDB});
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script]);
  t.teardown(() => child.kill('SIGKILL'));
  const claimant = await eventually('the claim of the child', 20_000, () => host.vbdClaimant(XVDB));
  t.equal(claimant, `another xenblk-nbd (process ${child.pid})`);
  t.equal(host.claimVbd(XVDB), undefined);
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.ok(host.claimVbd(XVDB));
});

void t.test('a device that cannot be opened', async (t) => {
  const host = createLinuxHost(fakeMachine(t, {}));
  t.throws(() => host.claimVbd(XVDB), { code: 'NO_DEVICE' });
  await host.close();
});
