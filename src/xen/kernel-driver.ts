/**
 * Who drives a vbd: the kernel keeps a device object for each, /sys/bus/xen/devices/vbd-ID, and its
 * `driver` link points at the driver that has bound it, xen-blkfront's being called `vbd`.
 */

import { readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';

/** The kernel driver that has `vbdId`; undefined when none has. */
export function kernelDriverOf(vbdId: number, sysRoot = '/sys'): string | undefined {
  try {
    return basename(readlinkSync(join(sysRoot, 'bus/xen/devices', `vbd-${vbdId}`, 'driver')));
  } catch {
    return undefined; // No device object, or one without a driver: nobody has it.
  }
}
