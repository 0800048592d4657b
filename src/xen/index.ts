export { type ChannelHolder, startChannelHolder } from './channel-holder.ts';
export {
  hypervisorType,
  linuxPaths,
  openXenDevice,
  type XenDevice,
  type XenPaths,
} from './device-file.ts';
export {
  attachKernelDriver,
  type DiskPaths,
  detachKernelDriver,
  kernelDiskHolder,
  kernelDiskName,
  kernelWouldConnect,
  linuxDiskPaths,
} from './kernel-disk.ts';
export { kernelDriverOf } from './kernel-driver.ts';
export { createLinuxHost } from './linux-host.ts';
