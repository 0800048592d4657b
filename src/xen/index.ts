export { hypervisorType, linuxPaths, type XenPaths } from './device-file.ts';
export {
  attachKernelDriver,
  type DiskPaths,
  detachKernelDriver,
  kernelDiskHolder,
  kernelWouldConnect,
  linuxDiskPaths,
} from './kernel-disk.ts';
export { kernelDriverOf } from './kernel-driver.ts';
export { createLinuxHost } from './linux-host.ts';
