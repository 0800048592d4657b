/**
 * Goal: each thing that can be wrong is found, named, and comes with the command that mends it; a
 * machine in order passes; a check that fails does not hide the others.
 * Method: machines of our own, where files stand for devices, and a systemctl of our own. What a
 * real guest says is tested in the Xen lab.
 */
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { transportWish } from '../../src/daemon/index.ts';
import { type Check, failed, formatChecks } from '../../src/survey/check.ts';
import {
  checkArchitecture,
  checkKoffi,
  checkNode,
  checkOpenFiles,
} from '../../src/survey/check-program.ts';
import { checkService } from '../../src/survey/check-service.ts';
import { checkDriver, checkVbds } from '../../src/survey/check-vbds.ts';
import { checkDevice, checkGrantLimit } from '../../src/survey/check-xen.ts';
import { type DoctorWorld, examine, summarise, withGuest } from '../../src/survey/index.ts';
import { surveyedMachine, vbd } from './support.ts';

const LIMITS = 'Max processes  100  100 processes\nMax open files            4096   8192   files\n';
const CHOICE = {
  vbds: [],
  simulate: undefined,
  simulateFeatures: undefined,
  queues: 1,
  ringPageOrder: undefined,
  connections: 1024,
};

function world(machine: DoctorWorld['machine']): DoctorWorld {
  return { machine, nodeVersion: 'v20.20.2', arch: 'x64', run: async () => undefined };
}

function byId(checks: readonly Check[]): Record<string, Check> {
  return Object.fromEntries(checks.map((check) => [check.id, check]));
}

void t.test('the program', async (t) => {
  for (const version of ['v20.20.0', 'v20.21.3', 'v22.0.0', 'v24.1.0']) {
    t.equal(checkNode(version).status, 'ok', version);
  }
  for (const version of ['v20.19.9', 'v18.20.0']) t.equal(checkNode(version).status, 'failed');
  t.equal(checkKoffi().status, 'ok');
  const broken = checkKoffi(() => {
    throw new Error('no such symbol');
  });
  t.match(broken, { status: 'failed', message: /no such symbol/, mend: /rebuild koffi/ });
  t.equal(checkArchitecture('arm64').status, 'ok');
  t.match(checkArchitecture('riscv64'), { status: 'failed', message: /riscv64/ });
});

void t.test('open files', async (t) => {
  const { proc } = surveyedMachine(t, { 'proc/self/limits': LIMITS });
  t.equal(checkOpenFiles(proc, 4096 - 64).status, 'ok');
  t.match(checkOpenFiles(proc, 4096 - 63), {
    status: 'failed',
    message: /4096 open files are allowed, and 4033 clients need 4097/,
    mend: /ulimit -n 4097.*LimitNOFILE=4097/,
  });
  t.equal(checkOpenFiles('/nowhere', 1).status, 'skipped');
});

void t.test('the grant limit against the need', async (t) => {
  const need = { leastPages: 60, goodPages: 800 };
  const check = (limitPages: number, vbds = 1): Check =>
    checkGrantLimit({ limitPages, source: '/sys/limit' }, need, vbds);
  t.equal(check(1024).status, 'ok');
  t.equal(check(60).status, 'warning');
  t.match(check(59), {
    status: 'failed',
    message: /59 pages may be granted.*at least 60/,
    mend:
      'echo 1024 > /sys/limit; and for every boot: echo ' +
      "'options xen-gntalloc limit=1024' > /etc/modprobe.d/xenblk-nbd.conf",
  });
  t.match(check(1024, 3), { status: 'warning', message: /3 vbds.*2400/, mend: /echo 4096 / });
});

void t.test('devices', async (t) => {
  const machine = surveyedMachine(t, { 'sys/hypervisor/type': 'xen\n', 'dev/xen/evtchn': '' });
  t.equal(checkDevice(machine, 'evtchn').status, 'ok');
  t.match(checkDevice(machine, 'gntalloc'), { status: 'failed', mend: 'modprobe xen-gntalloc' });
  t.match(checkDevice(machine, 'xenbus'), { mend: /CONFIG_XEN_XENBUS_FRONTEND/ });
  chmodSync(join(machine.devXen, 'evtchn'), 0);
  if (process.getuid?.() === 0) return t.comment('root may open everything');
  t.match(checkDevice(machine, 'evtchn'), { status: 'failed', mend: /usermod -aG xenblk-nbd/ });
});

void t.test('a machine without Xen', async (t) => {
  const checks = await examine(CHOICE, world(surveyedMachine(t, { 'proc/self/limits': LIMITS })));
  const { hypervisor, xenstore, node } = byId(checks);
  t.match(hypervisor, { status: 'failed', mend: /--simulate/ });
  t.equal(xenstore?.status, 'skipped');
  t.equal(node?.status, 'ok');
  t.match(summarise(checks), { status: 'failed', message: /^1 of \d+ checks failed/ });
});

void t.test('a guest whose XenStore does not answer', async (t) => {
  const machine = surveyedMachine(t, {
    'sys/hypervisor/type': 'xen\n',
    'dev/xen/gntalloc': '',
    'dev/xen/evtchn': '',
    'dev/xen/xenbus': '',
  });
  const { xenstore } = byId(await examine(CHOICE, world(machine)));
  t.match(xenstore, { status: 'failed', mend: /xenbus/ });
});

void t.test('a simulated guest is in order', async (t) => {
  const simulate = { kind: 'memory', sizeBytes: 2 ** 20 } as const;
  const machine = surveyedMachine(t, { 'proc/self/limits': LIMITS });
  const checks = await examine({ ...CHOICE, simulate, vbds: ['xvdb', 'xvdc'] }, world(machine));
  t.strictSame(
    checks.filter(({ status }) => status === 'failed'),
    [],
  );
  const found = byId(checks);
  t.match(found['driver-xvdb']?.message, /free/);
  t.match(found['backend-xvdc']?.message, /offers (?:1 ring|\d+ rings)$/);
  t.match(found['gntalloc-limit'], { status: 'warning', message: /2 vbds/ });
  t.equal(summarise(checks).status, 'ok');
});

void t.test('which vbd', async (t) => {
  const simulate = { kind: 'memory', sizeBytes: 2 ** 20 } as const;
  const choice = { simulate, simulateFeatures: undefined, vbds: ['xvda', 'xvdb'] };
  const use = { queues: 1, ringPageOrder: undefined };
  const wish = transportWish(use, { poolPagesMax: 768, coreCount: 2 });
  await withGuest(choice, async (guest) => {
    t.match((await checkVbds(guest, { ...use, vbds: [] }, wish))[1], {
      status: 'skipped',
      message: /Several virtual block devices are free: xvda .*xvdb/,
    });
    t.match((await checkVbds(guest, { ...use, vbds: ['xvdz'] }, wish))[1], {
      status: 'failed',
      message: /no virtual block device "xvdz"/,
      mend: 'xenblk-nbd list',
    });
    const held = { ...guest, vbds: async () => [vbd({ holder: 'process x (7)' })] };
    t.match((await checkVbds(held, { ...use, vbds: [] }, wish))[1], {
      status: 'failed',
      mend: /serve xvdb --take-over/,
    });
    const none = { ...guest, vbds: async () => [] };
    t.match((await checkVbds(none, { ...use, vbds: [] }, wish))[1], { mend: /xl block-attach/ });
  });
});

void t.test('who stands in the way', async (t) => {
  const kernel = { kind: 'kernel', driver: 'vbd', device: 'xvdb', use: undefined } as const;
  t.equal(checkDriver(vbd(), kernel).mend, 'xenblk-nbd serve xvdb --take-over');
  const used = { ...kernel, use: 'xvdb is mounted on /srv' };
  t.match(checkDriver(vbd(), used), { status: 'failed', mend: /umount or release xvdb/ });
  const process = { kind: 'process', processes: [{ pid: 7, command: 'x' }] } as const;
  t.match(checkDriver(vbd(), process), { mend: /stop xenblk-nbd@xvdb, or kill 7/ });
  const ours = { kind: 'process', processes: [], claimant: 'another xenblk-nbd' } as const;
  t.match(checkDriver(vbd(), ours), { status: 'ok', message: /another xenblk-nbd/ });
  t.match(checkDriver(vbd(), { kind: 'process', processes: [] }), { mend: /sudo xenblk-nbd list/ });
  t.equal(checkDriver(vbd(), { kind: 'left' }).status, 'ok');
});

void t.test('systemd', async (t) => {
  const run = async (): Promise<string> =>
    'xenblk-nbd@xvdb.service loaded failed failed NBD server for xvdb\n' +
    'xenblk-nbd@xvdc.socket loaded active listening NBD socket for xvdc\n';
  t.match(await checkService(surveyedMachine(t, {}), run), [{ status: 'skipped' }]);
  const bare = surveyedMachine(t, { 'run/systemd/system/x': '' });
  t.match(await checkService(bare, run), [{ status: 'warning', mend: /install-units/ }]);
  const unit = { 'etc/systemd/system/xenblk-nbd@.service': '', 'run/systemd/system/x': '' };
  t.match(await checkService(surveyedMachine(t, unit), run), [
    { status: 'ok', message: /\/etc\/systemd\/system$/ },
    { status: 'failed', message: /xvdb.service is failed/, mend: /journalctl -u xenblk-nbd@xvdb/ },
    { status: 'ok', message: /xvdc.socket is active \(listening\)/ },
  ]);
  const silent = await checkService(surveyedMachine(t, unit), async () => undefined);
  t.match(silent, [{ status: 'skipped' }]);
});

void t.test('what is printed', async (t) => {
  t.equal(
    formatChecks([failed('x', 'a name with \x1b[31m colour', 'mend it')]),
    'FAIL  a name with ?[31m colour\n      mend: mend it\n',
  );
});
