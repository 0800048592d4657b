/** What the daemon does, in one line for people. */

import type { VbdDevice } from './vbd-device.ts';

/** A device as far as its status goes. */
export type DeviceStatus = Pick<VbdDevice, 'vbd' | 'exportEntry' | 'isWaiting'>;

export function describeStatus(devices: readonly DeviceStatus[], clientCount: number): string {
  const served = devices.map(({ vbd, exportEntry, isWaiting }) => {
    const size = formatSize(exportEntry.sizeBytes);
    return `${vbd.name} (${size}${isWaiting ? ', waiting for its backend' : ''})`;
  });
  const clients = clientCount === 1 ? '1 client' : `${clientCount} clients`;
  return `serving ${served.join(', ')} to ${clients}`;
}

/** `64 MiB`, `1.5 TiB`: three digits at least, in binary units. */
export function formatSize(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = Number.isInteger(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
