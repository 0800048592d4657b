/** Sockets of the kernel's generic netlink (netlink(7)): commands for drivers, and their events. */

import { Errno, SysError } from './errno.ts';
import { errno, libc } from './libc.ts';
import { allocateMemory, type Memory, unmapMemory } from './memory.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const NETLINK_GENERIC = 16;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
/** More than any message of the families that we use. */
const MESSAGE_BYTES_MAX = 65_536;
/** struct sockaddr_nl: u16 family, u16 padding, u32 port, u32 groups. */
const ADDRESS_BYTES = 12;

/** One socket. Messages are whole, as nlmsghdr and what follows it. */
export class NetlinkSocket {
  readonly fd: number;
  readonly #memory: Memory;

  /** @throws SysError */
  constructor() {
    this.fd = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_GENERIC);
    if (this.fd < 0) throw new SysError('socket', errno(), 'AF_NETLINK');
    this.#memory = allocateMemory(MESSAGE_BYTES_MAX);
    // A port of its own, which the kernel chooses: a socket without one hears no event.
    new DataView(this.#memory.buffer).setUint16(0, AF_NETLINK, true);
    if (libc.bind(this.fd, this.#memory.address, ADDRESS_BYTES) < 0) {
      const number = errno();
      this.close();
      throw new SysError('bind', number, 'AF_NETLINK');
    }
  }

  /** Receives the events of a multicast group from now on. */
  join(group: number): void {
    new DataView(this.#memory.buffer).setUint32(0, group, true);
    const { address } = this.#memory;
    if (libc.setsockopt(this.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, address, 4) < 0) {
      throw new SysError('setsockopt', errno(), 'NETLINK_ADD_MEMBERSHIP');
    }
  }

  /** The kernel has acted on the message, and queued its answer, when this returns. */
  send(message: Uint8Array): void {
    new Uint8Array(this.#memory.buffer).set(message);
    if (libc.send(this.fd, this.#memory.address, message.length, 0) < 0) {
      throw new SysError('send', errno(), 'netlink');
    }
  }

  /** The next messages, one or several in a row; undefined when there are none now. */
  receive(): Uint8Array | undefined {
    const length = libc.recv(this.fd, this.#memory.address, MESSAGE_BYTES_MAX, 0);
    if (length >= 0) return new Uint8Array(this.#memory.buffer.slice(0, length));
    const number = errno();
    if (number === Errno.EAGAIN || number === Errno.EINTR) return undefined;
    throw new SysError('recv', number, 'netlink');
  }

  close(): void {
    libc.close(this.fd);
    unmapMemory(this.#memory.address, this.#memory.lengthBytes);
  }
}
