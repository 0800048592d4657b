/**
 * Goal: the arguments of gntalloc's ioctls have the layout of include/uapi/xen/gntalloc.h, and the
 * limit of pages is read from where the kernel shows it.
 * Method: bytes typed from that header; a sysfs of our own.
 */
import t from 'tap';
import { IOCTL_EVTCHN_BIND_UNBOUND_PORT, IOCTL_EVTCHN_NOTIFY } from '../../src/xen/evtchn.ts';
import {
  allocGrefBytes,
  decodeAllocGref,
  encodeAllocGref,
  encodeDeallocGref,
  IOCTL_GNTALLOC_ALLOC_GREF,
  IOCTL_GNTALLOC_DEALLOC_GREF,
} from '../../src/xen/gntalloc.ts';
import { createLinuxHost } from '../../src/xen/index.ts';
import { fakeMachine } from './fake-machine.ts';

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** _IOC(_IOC_NONE, type, number, size) of asm-generic/ioctl.h. */
function ioctlNumber(type: string, number: number, sizeBytes: number): number {
  return (sizeBytes << 16) | (type.charCodeAt(0) << 8) | number;
}

void t.test('numbers of the ioctls', (t) => {
  t.equal(IOCTL_GNTALLOC_ALLOC_GREF, ioctlNumber('G', 5, 24));
  t.equal(IOCTL_GNTALLOC_DEALLOC_GREF, ioctlNumber('G', 6, 16));
  t.equal(IOCTL_EVTCHN_BIND_UNBOUND_PORT, ioctlNumber('E', 2, 4));
  t.equal(IOCTL_EVTCHN_NOTIFY, ioctlNumber('E', 4, 4));
  t.end();
});

void t.test('struct ioctl_gntalloc_alloc_gref', (t) => {
  t.equal(allocGrefBytes(3), 28);
  const bytes = new Uint8Array(28).fill(0xee);
  const view = new DataView(bytes.buffer);
  encodeAllocGref(view, 0x0102, 'read-write', 3);
  t.equal(hex(bytes.subarray(0, 16)), '0201 0100 03000000 0000000000000000'.replaceAll(' ', ''));
  encodeAllocGref(view, 7, 'read-only', 3);
  t.equal(hex(bytes.subarray(0, 16)), '0700 0000 03000000 0000000000000000'.replaceAll(' ', ''));

  bytes.set(
    Buffer.from(
      '0700000003000000 0030000000000000 0a000000 ffffffff 0c000000'.replaceAll(' ', ''),
      'hex',
    ),
  );
  const { index, grefs } = decodeAllocGref(view);
  t.equal(index, 0x3000n);
  t.same([...grefs], [10, 0xffff_ffff, 12]);
  t.end();
});

void t.test('struct ioctl_gntalloc_dealloc_gref', (t) => {
  const bytes = new Uint8Array(16).fill(0xee);
  encodeDeallocGref(new DataView(bytes.buffer), 0x3000n, 5);
  t.equal(hex(bytes), '0030000000000000 05000000 00000000'.replaceAll(' ', ''));
  t.end();
});

void t.test('the budget', (t) => {
  const file = 'sys/module/xen_gntalloc/parameters/limit';
  const budgetOf = (files: Record<string, string>): number =>
    createLinuxHost(fakeMachine(t, files)).grantBudget().limitPages;
  t.equal(budgetOf({ [file]: '4096\n' }), 4096);
  t.equal(budgetOf({}), 1024, "the kernel's default where the file is missing");
  t.equal(budgetOf({ [file]: 'many\n' }), 1024);
  const machine = fakeMachine(t, {});
  t.equal(createLinuxHost(machine).grantBudget().source, `${machine.root}/${file}`);
  t.end();
});
