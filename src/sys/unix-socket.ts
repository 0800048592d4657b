/**
 * What Node cannot do with Unix sockets: pairs of connected ones, datagrams that carry descriptors,
 * and questions about a socket that somebody else made (unix(7), socket(7), cmsg(3)).
 */

import { Errno, SysError } from './errno.ts';
import { errno, libc } from './libc.ts';
import { allocateMemory, unmapMemory } from './memory.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
/** `sun_path` of struct sockaddr_un, and room for any address. */
const SUN_PATH_BYTES = 108;
const ADDRESS_BYTES = 128;

// struct msghdr of a 64-bit Linux: name, namelen (u32), iov, iovlen, control, controllen, flags.
const MSGHDR_BYTES = 56;
const IOVEC_BYTES = 16;
const CMSGHDR_BYTES = 16;

/** Two connected stream sockets, non-blocking. The caller closes both. */
export function createSocketPair(): [number, number] {
  const memory = allocateMemory(8);
  try {
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (libc.socketpair(AF_UNIX, type, 0, memory.address) < 0) {
      throw new SysError('socketpair', errno());
    }
    const [one = -1, other = -1] = new Int32Array(memory.buffer, 0, 2);
    return [one, other];
  } finally {
    unmapMemory(memory.address, memory.lengthBytes);
  }
}

/**
 * Sends one datagram to the Unix socket at `path`, where a leading `@` names an abstract one.
 * `fds` go along as duplicates.
 */
export function sendUnixDatagram(path: string, payload: Uint8Array, fds: readonly number[]): void {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  if (name.length >= SUN_PATH_BYTES) throw new SysError('connect', Errno.ENAMETOOLONG, path);
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new SysError('socket', errno());
  const controlBytes = fds.length === 0 ? 0 : CMSGHDR_BYTES + Math.ceil(fds.length / 2) * 8;
  const nameAt = MSGHDR_BYTES;
  const iovecAt = nameAt + 112;
  const controlAt = iovecAt + IOVEC_BYTES;
  const payloadAt = controlAt + controlBytes;
  const memory = allocateMemory(payloadAt + payload.length + 1);
  try {
    const { address, buffer } = memory;
    const view = new DataView(buffer);
    const setPointer = (at: number, value: number): void =>
      view.setBigUint64(at, BigInt(value), true);
    view.setUint16(nameAt, AF_UNIX, true);
    new Uint8Array(buffer).set(name, nameAt + 2);
    new Uint8Array(buffer).set(payload, payloadAt);
    setPointer(iovecAt, address + payloadAt);
    setPointer(iovecAt + 8, payload.length);
    setPointer(0, address + nameAt);
    // A path ends in a NUL that counts; an abstract name is exactly as long as the length says.
    view.setUint32(8, 2 + name.length + (path.startsWith('@') ? 0 : 1), true);
    setPointer(16, address + iovecAt);
    setPointer(24, 1);
    if (fds.length > 0) {
      setPointer(32, address + controlAt);
      setPointer(40, controlBytes);
      setPointer(controlAt, CMSGHDR_BYTES + 4 * fds.length);
      view.setInt32(controlAt + 8, SOL_SOCKET, true);
      view.setInt32(controlAt + 12, SCM_RIGHTS, true);
      for (const [index, sent] of fds.entries()) {
        view.setInt32(controlAt + CMSGHDR_BYTES + 4 * index, sent, true);
      }
    }
    if (libc.sendmsg(fd, address, MSG_NOSIGNAL) < 0) throw new SysError('sendmsg', errno(), path);
  } finally {
    libc.close(fd);
    unmapMemory(memory.address, memory.lengthBytes);
  }
}

/** A socket as the kernel sees it: numbers of socket(2). */
export interface SocketKind {
  readonly domain: number;
  readonly type: number;
  readonly isListening: boolean;
}

/** What kind of socket `fd` is; undefined when it is none. */
export function socketKindOf(fd: number): SocketKind | undefined {
  const memory = allocateMemory(8);
  try {
    const words = new Int32Array(memory.buffer, 0, 2);
    const option = (name: number): number | undefined => {
      words[0] = 0;
      words[1] = 4;
      const result = libc.getsockopt(fd, SOL_SOCKET, name, memory.address, memory.address + 4);
      return result < 0 ? undefined : words[0];
    };
    const domain = option(SO_DOMAIN);
    const type = option(SO_TYPE);
    if (domain === undefined || type === undefined) return undefined;
    return { domain, type, isListening: option(SO_ACCEPTCONN) === 1 };
  } finally {
    unmapMemory(memory.address, memory.lengthBytes);
  }
}

/**
 * The path that the Unix socket `fd` is bound to, with `@` in front of an abstract name; empty for
 * one without a name.
 */
export function unixPathOf(fd: number): string {
  const memory = allocateMemory(ADDRESS_BYTES + 4);
  try {
    const view = new DataView(memory.buffer);
    view.setUint32(ADDRESS_BYTES, ADDRESS_BYTES, true);
    if (libc.getsockname(fd, memory.address, memory.address + ADDRESS_BYTES) < 0) {
      throw new SysError('getsockname', errno());
    }
    const lengthBytes = Math.min(view.getUint32(ADDRESS_BYTES, true), ADDRESS_BYTES);
    if (lengthBytes <= 2 || view.getUint16(0, true) !== AF_UNIX) return '';
    const name = Buffer.from(memory.buffer, 2, lengthBytes - 2);
    if (name[0] === 0) return `@${name.toString('utf8', 1)}`;
    const end = name.indexOf(0);
    return name.toString('utf8', 0, end < 0 ? name.length : end);
  } finally {
    unmapMemory(memory.address, memory.lengthBytes);
  }
}

/** Keeps `fd` from the programs that this process starts. False when it is not open. */
export function setCloseOnExec(fd: number): boolean {
  const flags = libc.fcntl(fd, F_GETFD, 0);
  return flags >= 0 && libc.fcntl(fd, F_SETFD, flags | FD_CLOEXEC) >= 0;
}
