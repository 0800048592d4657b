/** Descriptors that outlive their owners, and the end of the process. */

import { SysError } from './errno.ts';
import { errno, libc } from './libc.ts';

const F_DUPFD_CLOEXEC = 1030;
const FIRST_FREE_FD = 3;
const SHUT_RD = 0;

/** A second descriptor of the same open file, closed on exec; the caller closes it. */
export function duplicateFd(fd: number): number {
  const copy = libc.fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
  if (copy < 0) throw new SysError('fcntl(F_DUPFD_CLOEXEC)', errno());
  return copy;
}

/**
 * Lets nothing more arrive at a socket: what has arrived can be read, and then it ends. One that is
 * closed, or no socket, is left alone.
 */
export function endReading(fd: number): void {
  libc.shutdown(fd, SHUT_RD);
}

/**
 * Ends the process at once. process.exit() waits for worker threads, and one that is blocked in a
 * system call never comes.
 */
export function exitNow(code: number): never {
  libc.exitNow(code);
  throw new Error('_exit returned');
}
