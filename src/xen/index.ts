export { hypervisorType, linuxPaths, type XenPaths } from './device-file.ts';
export { kernelDriverOf } from './kernel-driver.ts';
export { createLinuxHost } from './linux-host.ts';
