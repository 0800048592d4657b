/**
 * Goal: who drives a vbd is told from sysfs, procfs and the vbd's state: the kernel and its disk,
 * another process and which, a process that has ended, or nobody.
 */
import t from 'tap';
import { XenbusState } from '../../src/blkif/index.ts';
import { describeDriver, VbdDrivers } from '../../src/survey/index.ts';
import { surveyedMachine, vbd } from './support.ts';

const DEVICE = 'sys/bus/xen/devices/vbd-51728';
const QUIET = { 'proc/1/comm': 'init\n', 'proc/1/fd/0': '', 'proc/self/mountinfo': '' };

void t.test('nobody', async (t) => {
  const drivers = new VbdDrivers(surveyedMachine(t, QUIET));
  for (const state of [0, 1, 2, 6] as const) {
    t.strictSame(drivers.of(vbd({ state })), { kind: 'free' }, `state ${state}`);
  }
});

void t.test('the kernel, and what uses its disk', async (t) => {
  const mount = '30 22 202:16 / /srv/data rw - ext4 /dev/xvdb rw\n';
  const driver = { [`${DEVICE}/driver`]: '../../drivers/vbd' };
  const files = { ...QUIET, [`${DEVICE}/block/xvdb/dev`]: '202:16\n' };
  const idle = new VbdDrivers(surveyedMachine(t, files, driver)).of(vbd());
  t.strictSame(idle, { kind: 'kernel', driver: 'vbd', device: 'xvdb', use: undefined });
  t.equal(describeDriver(idle), 'kernel driver vbd as xvdb');
  const mounted = { ...files, 'proc/self/mountinfo': mount };
  const busy = new VbdDrivers(surveyedMachine(t, mounted, driver)).of(vbd());
  t.equal(describeDriver(busy), 'kernel driver vbd as xvdb: xvdb is mounted on /srv/data');
});

void t.test('another process', async (t) => {
  const held = vbd({ state: XenbusState.Connected });
  const grip = { 'proc/42/fd/17': '~/dev/xen/gntalloc' };
  const machine = surveyedMachine(t, { ...QUIET, 'proc/42/comm': 'xenblk-nbd\n' }, grip);
  const driver = new VbdDrivers(machine).of(held);
  t.strictSame(driver, { kind: 'process', processes: [{ pid: 42, command: 'xenblk-nbd' }] });
  t.equal(describeDriver(driver), 'process xenblk-nbd (42)');

  // A process without a list of descriptors is one that this user may not look into.
  const blind = surveyedMachine(t, { 'proc/1/comm': 'init\n' });
  t.equal(describeDriver(new VbdDrivers(blind).of(held)), 'another process');
});

void t.test('one of ours, in any state', async (t) => {
  const words = 'another xenblk-nbd (process 42)';
  const claimantOf = (id: number): string | undefined => (id === 51728 ? words : undefined);
  const drivers = new VbdDrivers(surveyedMachine(t, QUIET), claimantOf);
  for (const state of [1, 4, 6] as const) {
    const driver = drivers.of(vbd({ state }));
    t.strictSame(driver, { kind: 'process', processes: [], claimant: words }, `state ${state}`);
    t.equal(describeDriver(driver), words);
  }
  t.equal(drivers.of(vbd({ id: 51744, state: 1 })).kind, 'free', 'another vbd');
});

void t.test('a process that has ended', async (t) => {
  const held = vbd({ state: XenbusState.Connected });
  const driver = new VbdDrivers(surveyedMachine(t, QUIET)).of(held);
  t.equal(driver.kind, 'left');
  t.match(describeDriver(driver), /^free \(left open/);
});
