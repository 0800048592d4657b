/**
 * Event channels through /dev/xen/evtchn (drivers/xen/evtchn.c, include/uapi/xen/evtchn.h).
 *
 *   IOCTL_EVTCHN_BIND_UNBOUND_PORT  u32 remote domain; returns the local port
 *   IOCTL_EVTCHN_NOTIFY             u32 port
 *   read    u32 numbers of the ports that have an event; each stays masked from then on
 *   write   u32 numbers of ports to unmask
 *
 * Each channel has a descriptor of its own, so that closing it ends the channel and one lane never
 * reads another's events. After a guest was restored such a descriptor must never be closed: the
 * kernel's release function then meets a port without an interrupt and hits a BUG.
 */

import { join } from 'node:path';
import { type EventChannelHandle, HostError } from '../host/index.ts';
import {
  allocateMemory,
  closeFd,
  Errno,
  errno,
  libc,
  SysError,
  unmapMemory,
} from '../sys/index.ts';
import { openXenDevice, type XenPaths } from './device-file.ts';

export const IOCTL_EVTCHN_BIND_UNBOUND_PORT = 0x00044502;
export const IOCTL_EVTCHN_NOTIFY = 0x00044504;

const moduleUrl = new URL('./event-channel.js', import.meta.url).href;

/** Allocates a port that `domid` may bind to. */
export function bindUnboundPort(paths: XenPaths, domid: number): EventChannelHandle {
  const fd = openXenDevice(paths, 'evtchn');
  const argument = allocateMemory(4);
  new DataView(argument.buffer).setUint32(0, domid, true);
  const port = libc.ioctl(fd, IOCTL_EVTCHN_BIND_UNBOUND_PORT, argument.address);
  const number = errno();
  unmapMemory(argument.address, argument.lengthBytes);
  if (port >= 0) return { port, fd, moduleUrl, detail: {} };

  closeFd(fd);
  const file = join(paths.devXen, 'evtchn');
  const cause = new SysError('ioctl BIND_UNBOUND_PORT', number, file);
  const limit = number === Errno.ENOSPC;
  throw new HostError(
    limit ? 'LIMIT' : 'FAILED',
    `cannot bind an event channel for domain ${domid}: ${cause.message}` +
      (limit ? '; this guest has used up its event channels' : ''),
    { cause },
  );
}
