/**
 * Sockets between a virtual machine and its host (vsock(7)), which Node does not know. An address
 * is the number of a machine, its CID, and a port.
 */

import { closeSync, constants, openSync } from 'node:fs';
import { Errno, SysError } from './errno.ts';
import { errno, libc } from './libc.ts';
import { allocateMemory, unmapMemory } from './memory.ts';

/** The family of these sockets. */
export const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const F_SETFL = 4;
const IOCTL_VM_SOCKETS_GET_LOCAL_CID = 0x7b9;

/** Every CID of this machine, and, as a port, any that is free. */
export const VMADDR_ANY = 0xffff_ffff;
/** This machine, for itself. */
export const VMADDR_CID_LOCAL = 1;

// struct sockaddr_vm: family u16, reserved u16, port u32, cid u32, flags and padding.
const ADDRESS_BYTES = 16;
const PORT_AT = 4;
const CID_AT = 8;

/** Where a vsock socket is. */
export interface VsockName {
  readonly cid: number;
  readonly port: number;
}

function withAddress<Result>(use: (address: number, view: DataView) => Result): Result {
  const memory = allocateMemory(ADDRESS_BYTES + 4);
  try {
    const view = new DataView(memory.buffer);
    view.setUint16(0, AF_VSOCK, true);
    view.setUint32(ADDRESS_BYTES, ADDRESS_BYTES, true);
    return use(memory.address, view);
  } finally {
    unmapMemory(memory.address, memory.lengthBytes);
  }
}

function nameIn(view: DataView): VsockName {
  return { cid: view.getUint32(CID_AT, true), port: view.getUint32(PORT_AT, true) };
}

function openAt(call: 'bind' | 'connect', { cid, port }: VsockName, flags: number): number {
  const fd = libc.socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) throw new SysError('socket', errno());
  try {
    withAddress((address, view) => {
      view.setUint32(PORT_AT, port, true);
      view.setUint32(CID_AT, cid, true);
      if (libc[call](fd, address, ADDRESS_BYTES) < 0) throw new SysError(call, errno());
    });
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/** A socket that listens, non-blocking. The caller closes it. @throws SysError */
export function listenVsock(name: VsockName, backlog: number): number {
  const fd = openAt('bind', name, SOCK_NONBLOCK);
  if (libc.listen(fd, backlog) >= 0) return fd;
  const error = new SysError('listen', errno());
  libc.close(fd);
  throw error;
}

/** Connects, and waits for it. The socket is non-blocking then; the caller closes it. */
export function connectVsock(name: VsockName): number {
  const fd = openAt('connect', name, 0);
  libc.fcntl(fd, F_SETFL, SOCK_NONBLOCK);
  return fd;
}

/** Where a socket is bound. @throws SysError */
export function vsockNameOf(fd: number): VsockName {
  return withAddress((address, view) => {
    if (libc.getsockname(fd, address, address + ADDRESS_BYTES) < 0) {
      throw new SysError('getsockname', errno());
    }
    return nameIn(view);
  });
}

/** A client of a listening socket. */
export interface AcceptedSocket {
  /** Non-blocking; the caller closes it. */
  readonly fd: number;
  /** Who it is, if the socket is of this kind. */
  readonly peer: VsockName;
}

/** The next client that waits; undefined when there is none. @throws SysError */
export function acceptVsock(listener: number): AcceptedSocket | undefined {
  return withAddress((address, view) => {
    const flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = libc.accept4(listener, address, address + ADDRESS_BYTES, flags);
    if (fd >= 0) return { fd, peer: nameIn(view) };
    const number = errno();
    if (number === Errno.EAGAIN) return undefined;
    throw new SysError('accept4', number);
  });
}

/** The CID by which the host knows this machine; undefined when there is none. */
export function localCid(): number | undefined {
  let device: number;
  try {
    device = openSync('/dev/vsock', constants.O_RDONLY);
  } catch {
    return undefined;
  }
  const memory = allocateMemory(4);
  try {
    if (libc.ioctl(device, IOCTL_VM_SOCKETS_GET_LOCAL_CID, memory.address) < 0) return undefined;
    const [cid = VMADDR_ANY] = new Uint32Array(memory.buffer, 0, 1);
    return cid === VMADDR_ANY ? undefined : cid;
  } finally {
    unmapMemory(memory.address, memory.lengthBytes);
    closeSync(device);
  }
}
