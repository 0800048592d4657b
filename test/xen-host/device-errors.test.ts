/**
 * Goal: a host that cannot do its work says which file, which errno, and what to do.
 * Method: the real host on folders that look like machines where something is missing. What needs
 * a real kernel (no permission, the grant limit) is tested in the Xen lab.
 */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { HostError } from '../../src/host/index.ts';
import { createLinuxHost, hypervisorType } from '../../src/xen/index.ts';
import { fakeMachine } from './fake-machine.ts';

function failureOf(action: () => unknown): HostError {
  try {
    action();
  } catch (error) {
    if (error instanceof HostError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

void t.test('bare metal', async (t) => {
  const machine = fakeMachine(t, {});
  const host = createLinuxHost(machine);
  const error = failureOf(() => host.grantPages(0, 1, 'read-write'));
  t.equal(error.code, 'NO_DEVICE');
  t.equal(
    error.message,
    `cannot open ${machine.devXen}/gntalloc (ENOENT): this is not a Xen guest: there is no ` +
      `${machine.sys}/hypervisor/type; use --simulate to try without Xen`,
  );
  t.equal(failureOf(() => host.bindEventChannel(0)).code, 'NO_DEVICE');
  await t.rejects(host.openXenStore(), { code: 'NO_DEVICE', message: /xenbus \(ENOENT\)/ });
  await host.close();
});

void t.test('another hypervisor', (t) => {
  const machine = fakeMachine(t, { 'sys/hypervisor/type': 'kvm\n' });
  const error = failureOf(() => createLinuxHost(machine).bindEventChannel(0));
  t.match(error.message, 'hypervisor/type says "kvm"');
  t.equal(hypervisorType(machine), 'kvm');
  t.end();
});

void t.test('a Xen guest without the modules', async (t) => {
  const machine = fakeMachine(t, { 'sys/hypervisor/type': 'xen\n' });
  const host = createLinuxHost(machine);
  const grants = failureOf(() => host.grantPages(0, 1, 'read-write'));
  t.equal(grants.code, 'NO_DEVICE');
  t.match(grants.message, /gntalloc \(ENOENT\): load its module with: modprobe xen-gntalloc$/);
  const channel = failureOf(() => host.bindEventChannel(0));
  t.match(channel.message, /evtchn \(ENOENT\): load its module with: modprobe xen-evtchn$/);
  await t.rejects(host.openXenStore(), { message: /CONFIG_XEN_XENBUS_FRONTEND/ });
});

void t.test('files that are no devices', async (t) => {
  const machine = fakeMachine(t, { 'dev/xen/gntalloc': '', 'dev/xen/evtchn': '' });
  const host = createLinuxHost(machine);
  const grants = failureOf(() => host.grantPages(3, 2, 'read-write'));
  t.equal(grants.code, 'FAILED');
  t.match(grants.message, `cannot grant 2 more pages to domain 3`);
  t.match(grants.message, `${machine.devXen}/gntalloc`);
  t.match(grants.message, 'ENOTTY');
  const channel = failureOf(() => host.bindEventChannel(3));
  t.match(channel.message, /cannot bind an event channel for domain 3: .*evtchn.*ENOTTY/);

  mkdirSync(join(machine.devXen, 'xenbus'));
  await t.rejects(host.openXenStore(), { code: 'FAILED', message: /xenbus \(EISDIR\)/ });
});

void t.test('a host that could not open anything leaves no descriptor', (t) => {
  const machine = fakeMachine(t, { 'dev/xen/evtchn': '' });
  const host = createLinuxHost(machine);
  const before = readdirSync('/proc/self/fd').length;
  for (let round = 0; round < 50; round++) failureOf(() => host.bindEventChannel(0));
  t.equal(readdirSync('/proc/self/fd').length, before);
  t.end();
});

void t.test('a page count that makes no sense is a programming error', (t) => {
  const host = createLinuxHost(fakeMachine(t, {}));
  for (const pageCount of [0, -1, 1.5, Number.NaN]) {
    t.throws(() => host.grantPages(0, pageCount, 'read-write'), RangeError);
  }
  t.end();
});
