/**
 * Goal: device names and numbers agree with docs/misc/vbd-interface of Xen, both ways.
 * Method: rows typed from that document, ranges at their edges, and a round trip of every number.
 */

import fc from 'fast-check';
import t from 'tap';
import { DeviceNameError, formatDeviceNumber, parseDeviceNumber } from '../../src/blkif/index.ts';

const ROWS: [name: string, deviceNumber: number][] = [
  ['xvda', 51712],
  ['xvda1', 51713],
  ['xvdb', 51728],
  ['xvdc', 51744],
  ['xvdp', 51952],
  ['xvdp15', 51967],
  ['xvdq', 268439552],
  ['xvda16', 268435472],
  ['xvdaa', (1 << 28) | (26 << 8)],
  ['xvdzz255', (1 << 28) | (701 << 8) | 255],
  ['sda', 2048],
  ['sdp15', 2303],
  ['hda', 768],
  ['hdb1', 833],
  ['hdc', 5632],
  ['hdd63', 5632 + 64 + 63],
];

void t.test('known names, both ways', (t) => {
  for (const [name, deviceNumber] of ROWS) {
    t.equal(parseDeviceNumber(name), deviceNumber, name);
    t.equal(parseDeviceNumber(`/dev/${name}`), deviceNumber, `/dev/${name}`);
    t.equal(formatDeviceNumber(deviceNumber), name, String(deviceNumber));
  }
  t.end();
});

void t.test('other spellings', (t) => {
  t.equal(parseDeviceNumber('51712'), 51712);
  t.equal(parseDeviceNumber('d0'), 51712);
  t.equal(parseDeviceNumber('d0p0'), 51712);
  t.equal(parseDeviceNumber('d3p1'), 51712 + 3 * 16 + 1);
  t.equal(parseDeviceNumber('d16'), 268439552);
  t.equal(parseDeviceNumber('d1048575p255'), (1 << 28) | (1048575 << 8) | 255);
  t.equal(parseDeviceNumber('0'), 0);
  t.end();
});

void t.test('what is no device is refused with a sentence', (t) => {
  const refused: [text: string, reason: RegExp][] = [
    ['', /spelling is unknown/],
    ['xvd', /spelling is unknown/],
    ['xvdA', /spelling is unknown/],
    ['xvda0', /spelling is unknown/],
    ['xvda01', /spelling is unknown/],
    ['xvda 1', /spelling is unknown/],
    ['xvda1\n', /spelling is unknown/],
    ['/dev/', /spelling is unknown/],
    ['/dev/mapper/x', /spelling is unknown/],
    ['051712', /spelling is unknown/],
    ['-1', /spelling is unknown/],
    ['5e4', /spelling is unknown/],
    ['nvme0n1', /spelling is unknown/],
    ['536870912', /reserved/],
    ['9999999999', /reserved/],
    ['d1048576', /disks end/],
    ['xvdzzzzz', /disks end/],
    ['xvda256', /partitions end/],
    ['d0p256', /partitions end/],
    ['sdq', /sda to sdp/],
    ['sda16', /sda to sdp/],
    ['hde', /hda to hdd/],
    ['hda64', /hda to hdd/],
  ];
  for (const [text, reason] of refused) {
    t.throws(() => parseDeviceNumber(text), { name: 'DeviceNameError', message: reason }, text);
  }
  const long = 'x'.repeat(10_000);
  t.throws(() => parseDeviceNumber(long), DeviceNameError);
  try {
    parseDeviceNumber(long);
  } catch (error) {
    t.ok(error instanceof DeviceNameError && error.message.length < 300, 'a long text is cut');
  }
  t.end();
});

void t.test('every number below the reserved ones parses back from its name', (t) => {
  for (let deviceNumber = 0; deviceNumber < 0x10000; deviceNumber++) {
    if (parseDeviceNumber(formatDeviceNumber(deviceNumber)) !== deviceNumber) {
      t.fail(`number ${deviceNumber} became ${formatDeviceNumber(deviceNumber)}`);
    }
  }
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 29 - 1 }), (deviceNumber) => {
      return parseDeviceNumber(formatDeviceNumber(deviceNumber)) === deviceNumber;
    }),
  );
  t.pass('round trips');
  t.end();
});
