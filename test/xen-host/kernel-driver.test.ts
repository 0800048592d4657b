/**
 * Goal: who drives a vbd, and what uses its disk, is read from sysfs and procfs; a disk in use is
 * never detached; a machine without the device is no error.
 * Method: a sysfs and a procfs of our own, where `unbind` and `bind` are plain files. The kernel's
 * side of it is tested in the Xen lab.
 */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { HostError } from '../../src/host/index.ts';
import {
  attachKernelDriver,
  type DiskPaths,
  detachKernelDriver,
  kernelDiskHolder,
  kernelDriverOf,
  kernelWouldConnect,
} from '../../src/xen/index.ts';
import { fakeMachine } from './fake-machine.ts';

const DRIVER = 'sys/bus/xen/drivers/vbd';
const DEVICE = 'sys/bus/xen/devices/vbd-51712';

/** A machine whose kernel has xvda with a partition. */
function machineWithDisk(
  test: { teardown(action: () => void): unknown },
  files: Readonly<Record<string, string>> = {},
): DiskPaths & { root: string; unbound(): string } {
  const machine = fakeMachine(test, {
    [`${DRIVER}/unbind`]: '',
    [`${DRIVER}/bind`]: '',
    [`${DEVICE}/state`]: 'Connected\n',
    [`${DEVICE}/block/xvda/dev`]: '202:0\n',
    [`${DEVICE}/block/xvda/xvda1/dev`]: '202:1\n',
    'dev/xvda': '',
    'proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n',
    'proc/self/mountinfo': '22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n',
    ...files,
  });
  symlinkSync('../../drivers/vbd', join(machine.root, DEVICE, 'driver'));
  const unbound = (): string => readFileSync(join(machine.root, DRIVER, 'unbind'), 'utf8');
  return { ...machine, dev: join(machine.root, 'dev'), unbound };
}

void t.test('the driver of a vbd', (t) => {
  const { sys } = fakeMachine(t, { [`${DRIVER}/uevent`]: '' });
  const device = join(sys, 'bus/xen/devices/vbd-51712');
  t.equal(kernelDriverOf(51712, sys), undefined, 'no device');
  mkdirSync(device, { recursive: true });
  t.equal(kernelDriverOf(51712, sys), undefined, 'a device without a driver');
  symlinkSync('../../drivers/vbd', join(device, 'driver'));
  t.equal(kernelDriverOf(51712, sys), 'vbd');
  t.equal(kernelDriverOf(51728, sys), undefined, 'another device');
  t.end();
});

void t.test('a disk that nothing uses is detached', (t) => {
  const machine = machineWithDisk(t);
  t.equal(kernelDiskHolder(51712, machine), undefined);
  detachKernelDriver(51712, machine);
  t.equal(machine.unbound(), 'vbd-51712');
  detachKernelDriver(51728, machine);
  t.equal(machine.unbound(), 'vbd-51712', 'a vbd without a driver is left alone');
  t.end();
});

const holders: Record<string, { files: Record<string, string>; words: RegExp }> = {
  'a mounted disk': {
    files: { 'proc/self/mountinfo': '30 22 202:0 / /srv/data rw - ext4 /dev/xvda rw\n' },
    words: /xvda is mounted on \/srv\/data/,
  },
  'a mounted partition': {
    files: { 'proc/self/mountinfo': '30 22 202:1 / /boot rw shared:1 - ext4 /dev/xvda1 rw\n' },
    words: /xvda1 is mounted on \/boot/,
  },
  'a partition for swap': {
    files: { 'proc/swaps': 'Filename\tType\n' },
    words: /xvda1 is used as swap/,
  },
  'a partition in a RAID': {
    files: { [`${DEVICE}/block/xvda/xvda1/holders/md0/uevent`]: '' },
    words: /xvda1 is part of md0/,
  },
};

for (const [name, { files, words }] of Object.entries(holders)) {
  void t.test(name, (t) => {
    const machine = machineWithDisk(t, files);
    if (name.includes('swap')) {
      const line = `${machine.dev}/xvda1   partition\t16380\t0\t-2\n`;
      writeFileSync(join(machine.proc, 'swaps'), line);
    }
    t.match(kernelDiskHolder(51712, machine), words);
    t.throws(() => detachKernelDriver(51712, machine), { code: 'FAILED', message: words });
    t.equal(machine.unbound(), '', 'nothing was detached');
    t.end();
  });
}

void t.test('a disk whose device file is missing is not taken on trust', (t) => {
  const machine = machineWithDisk(t);
  const elsewhere = { ...machine, dev: join(machine.root, 'nowhere') };
  t.throws(() => detachKernelDriver(51712, elsewhere), {
    message: /cannot see whether .*xvda is in use: .*ENOENT/,
  });
  t.equal(machine.unbound(), '');
  t.end();
});

void t.test('a driver without a disk is detached', (t) => {
  const machine = fakeMachine(t, { [`${DRIVER}/unbind`]: '', [`${DEVICE}/state`]: 'Closed\n' });
  symlinkSync('../../drivers/vbd', join(machine.root, DEVICE, 'driver'));
  detachKernelDriver(51712, { ...machine, dev: '/nowhere' });
  t.equal(readFileSync(join(machine.root, DRIVER, 'unbind'), 'utf8'), 'vbd-51712');
  t.end();
});

void t.test('what can be given to the kernel', (t) => {
  const machine = machineWithDisk(t, { [`${DEVICE}/state`]: 'Initialising\n' });
  t.ok(kernelWouldConnect(51712, machine));
  attachKernelDriver(51712, machine);
  t.equal(readFileSync(join(machine.root, DRIVER, 'bind'), 'utf8'), 'vbd-51712');

  const closed = machineWithDisk(t, { [`${DEVICE}/state`]: 'Closed\n' });
  t.notOk(kernelWouldConnect(51712, closed));
  t.throws(() => attachKernelDriver(51712, closed), HostError);
  t.throws(() => attachKernelDriver(51712, closed), { message: /xl block-detach/ });
  t.equal(readFileSync(join(closed.root, DRIVER, 'bind'), 'utf8'), '');

  const noDriver = { ...fakeMachine(t, {}), dev: '/nowhere' };
  t.throws(() => attachKernelDriver(51712, noDriver), { code: 'NO_DEVICE' });
  t.end();
});
