/** eventfd(2): a counter that threads of this process wake each other with. */

import { SysError } from './errno.ts';
import { errno, libc } from './libc.ts';
import { allocateMemory } from './memory.ts';

const EFD_CLOEXEC = 0x80000;
const EFD_NONBLOCK = 0x800;

// One counter word for each direction, of this thread: eventfd reads and writes eight bytes.
const scratch = allocateMemory(16);
const one = new BigUint64Array(scratch.buffer);
one[0] = 1n;

/** A new eventfd(2), non-blocking. Closed by the caller with {@link closeFd}. */
export function createEventFd(): number {
  const fd = libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw new SysError('eventfd', errno());
  return fd;
}

/** Makes `fd` readable. Never blocks: a counter that is full is readable already. */
export function signalEventFd(fd: number): void {
  libc.write(fd, scratch.address, 8);
}

/** Takes what was signalled; returns whether anything was. */
export function drainEventFd(fd: number): boolean {
  return libc.read(fd, scratch.address + 8, 8) === 8;
}

/** Closes a descriptor. */
export function closeFd(fd: number): void {
  libc.close(fd);
}
