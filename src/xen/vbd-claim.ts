/**
 * One process for each vbd. Nothing in Xen or in the kernel keeps two processes from driving one
 * vbd, and each would take the other for what a crash has left behind.
 *
 * So a process claims its vbd with a lock of the kernel's on /dev/xen/gntalloc, which it has to
 * open anyway: one byte, at the offset that is the vbd's number (fcntl(2), "Open file description
 * locks"). Nothing is read or written there, no file is left behind, and the kernel ends the lock
 * with the process, whatever ended that.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { HostError, type VbdClaim } from '../host/index.ts';
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

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const F_UNLCK = 2;

// struct flock of a 64-bit Linux: i16 type, i16 whence, i64 start, i64 length, i32 pid.
const FLOCK_BYTES = 32;
const START_OFFSET = 8;
const LENGTH_OFFSET = 16;

/** Claims `vbdId` for this process; undefined while another claim stands. @throws HostError */
export function claimVbd(paths: XenPaths, vbdId: number): VbdClaim | undefined {
  const fd = openXenDevice(paths, 'gntalloc');
  const { result, number } = lockCall(fd, F_OFD_SETLK, vbdId);
  if (result >= 0) return { release: () => closeFd(fd) };
  closeFd(fd);
  if (number === Errno.EAGAIN || number === Errno.EACCES) return undefined;
  throw lockError(paths, number);
}

/** Who has claimed `vbdId`, in words; undefined when nobody has. @throws HostError */
export function vbdClaimant(paths: XenPaths, vbdId: number): string | undefined {
  const fd = openXenDevice(paths, 'gntalloc');
  try {
    const { result, number, type } = lockCall(fd, F_OFD_GETLK, vbdId);
    if (result < 0) throw lockError(paths, number);
    if (type === F_UNLCK) return undefined;
    const pid = findClaimant(paths, vbdId);
    return pid === undefined ? 'another xenblk-nbd' : `another xenblk-nbd (process ${pid})`;
  } finally {
    closeFd(fd);
  }
}

/** `type` is what the kernel answers to a question. */
function lockCall(
  fd: number,
  command: number,
  vbdId: number,
): { readonly result: number; readonly number: number; readonly type: number } {
  const { address, buffer, lengthBytes } = allocateMemory(FLOCK_BYTES);
  try {
    const view = new DataView(buffer);
    view.setInt16(0, F_WRLCK, true);
    view.setBigInt64(START_OFFSET, BigInt(vbdId), true);
    view.setBigInt64(LENGTH_OFFSET, 1n, true);
    const result = libc.fcntl(fd, command, address);
    return { result, number: errno(), type: view.getInt16(0, true) };
  } finally {
    unmapMemory(address, lengthBytes);
  }
}

function lockError(paths: XenPaths, number: number): HostError {
  const cause = new SysError('fcntl', number, join(paths.devXen, 'gntalloc'));
  return new HostError('FAILED', `cannot claim a vbd: ${cause.message}`, { cause });
}

/**
 * The process that holds the lock, as far as this user may look. The kernel names no process for
 * such a lock, but shows it with the descriptor it belongs to (proc(5), /proc/PID/fdinfo).
 */
function findClaimant(paths: XenPaths, vbdId: number): number | undefined {
  const file = join(paths.devXen, 'gntalloc');
  const lock = new RegExp(`^lock:.* OFDLCK .* ${vbdId} ${vbdId}$`, 'm');
  for (const pid of namesIn(paths.proc).filter((name) => /^\d+$/.test(name))) {
    for (const fd of namesIn(join(paths.proc, pid, 'fdinfo'))) {
      try {
        if (readlinkSync(join(paths.proc, pid, 'fd', fd)) !== file) continue;
        if (lock.test(readFileSync(join(paths.proc, pid, 'fdinfo', fd), 'utf8')))
          return Number(pid);
      } catch {
        // Closed meanwhile, or not ours to see.
      }
    }
  }
  return undefined;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // A process that has ended, or is another user's.
  }
}
