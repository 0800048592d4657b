/** How much a Unix socket takes before its reader has taken anything (socket(7), unix(7)). */

import { libc } from './libc.ts';
import { allocateMemory } from './memory.ts';

const AF_UNIX = 1;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_SNDBUFFORCE = 32;
const SO_DOMAIN = 39;

// One for all sockets of a thread. A view for each would stay for ever in a lane, which calls this
// for each client: Node gives back what belongs to a view in its event loop, and a lane has none.
const { address, buffer } = allocateMemory(8);
const words = new Int32Array(buffer, 0, 2);

/**
 * Asks for a send buffer of `lengthBytes` when `fd` is a Unix socket. The usual one of 208 KiB is
 * less than one large reply, so that writer and reader wake each other several times for each.
 * Sockets of TCP are left alone: the kernel sizes their buffers by itself unless it is told to.
 *
 * Without CAP_NET_ADMIN the kernel gives at most what net.core.wmem_max allows.
 */
export function enlargeSendBuffer(fd: number, lengthBytes: number): void {
  words[1] = 4;
  libc.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, address, address + 4);
  if (words[0] === AF_UNIX) {
    words[0] = lengthBytes;
    const isForced = libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, address, 4) === 0;
    if (!isForced) libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, address, 4);
  }
}
