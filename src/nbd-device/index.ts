/** `nbd-device`: a block device of the kernel's that outlives its NBD server. */

export type { KernelNbd, NbdConnection } from './kernel-nbd.ts';
export { openLinuxNbd } from './linux-nbd.ts';
export { keepNbdDevice, type NbdDeviceOptions } from './nbd-device.ts';
