/**
 * Goal: who drives a vbd is read from sysfs, and a machine without the device is no error.
 * Method: a sysfs of our own.
 */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { kernelDriverOf } from '../../src/xen/index.ts';
import { fakeMachine } from './fake-machine.ts';

void t.test('the driver of a vbd', (t) => {
  const { sys } = fakeMachine(t, { 'sys/bus/xen/drivers/vbd/uevent': '' });
  const device = join(sys, 'bus/xen/devices/vbd-51712');
  t.equal(kernelDriverOf(51712, sys), undefined, 'no device');
  mkdirSync(device, { recursive: true });
  t.equal(kernelDriverOf(51712, sys), undefined, 'a device without a driver');
  symlinkSync('../../drivers/vbd', join(device, 'driver'));
  t.equal(kernelDriverOf(51712, sys), 'vbd');
  t.equal(kernelDriverOf(51728, sys), undefined, 'another device');
  t.end();
});
