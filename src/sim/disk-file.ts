/**
 * The disks of a simulated host: a file, or memory that stands for a disk. Either is a descriptor
 * that the back end's thread reads and writes. A file is never truncated and keeps its content.
 */

import { closeSync, constants, fstatSync, ftruncateSync, openSync } from 'node:fs';
import { HostError } from '../host/index.ts';
import { closeFd, errno, libc, SysError } from '../sys/index.ts';

/** What to serve: a file as large as it is, or zeroes of a given size. */
export type DiskSource =
  | { readonly file: string; readonly sizeBytes?: undefined }
  | { readonly file?: undefined; readonly sizeBytes: number };

/** An open disk. */
export interface DiskFile {
  readonly fd: number;
  /** For XenStore's `params` and for messages. */
  readonly params: string;
  readonly sizeBytes: number;
  /** It may only be read: by the caller's wish, or because the file cannot be written. */
  readonly isReadOnly: boolean;
}

const MFD_CLOEXEC = 1;

/**
 * Opens a disk.
 *
 * @throws HostError with one sentence: a file that is missing, may not be opened, is no ordinary
 * file, or has a size that is no multiple of `sectorSize`.
 */
export function openDisk(source: DiskSource, readOnly: boolean, sectorSize: number): DiskFile {
  return source.file === undefined
    ? openMemory(source.sizeBytes, readOnly, sectorSize)
    : openFile(source.file, readOnly, sectorSize);
}

export function closeDisk(disk: DiskFile): void {
  closeFd(disk.fd);
}

/**
 * Makes the disk's file long enough for a new size. A file is never cut: a smaller disk leaves the
 * rest of it alone.
 */
export function resizeDisk(disk: DiskFile, sizeBytes: number, sectorSize: number): DiskFile {
  checkSize(disk.params, sizeBytes, sectorSize);
  if (fstatSync(disk.fd).size < sizeBytes) {
    if (disk.isReadOnly) {
      throw new HostError('FAILED', `${disk.params} is read-only and cannot grow.`);
    }
    ftruncateSync(disk.fd, sizeBytes);
  }
  return { ...disk, sizeBytes };
}

function openMemory(sizeBytes: number, readOnly: boolean, sectorSize: number): DiskFile {
  checkSize('A RAM disk', sizeBytes, sectorSize);
  const fd = libc.memfdCreate('sim-disk', MFD_CLOEXEC);
  if (fd < 0) throw new SysError('memfd_create', errno());
  if (libc.ftruncate(fd, sizeBytes) !== 0) {
    const cause = new SysError('ftruncate', errno());
    closeFd(fd);
    throw new HostError('FAILED', `A RAM disk of ${sizeBytes} bytes cannot be had; ask for less.`, {
      cause,
    });
  }
  return { fd, params: `ram:${sizeBytes}`, sizeBytes, isReadOnly: readOnly };
}

function openFile(path: string, readOnly: boolean, sectorSize: number): DiskFile {
  const { fd, isReadOnly } = openAsAllowed(path, readOnly);
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) {
      const what = status.isDirectory() ? 'a directory' : 'not an ordinary file';
      throw new HostError('FAILED', `${path} is ${what}; give a disk image to simulate a disk of.`);
    }
    checkSize(path, status.size, sectorSize);
    return { fd, params: path, sizeBytes: status.size, isReadOnly };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openAsAllowed(path: string, readOnly: boolean): { fd: number; isReadOnly: boolean } {
  // Not blocking: the open of a pipe by mistake must not hang. It changes nothing for files.
  const flags = constants.O_NONBLOCK;
  if (!readOnly) {
    try {
      return { fd: openSync(path, constants.O_RDWR | flags), isReadOnly: false };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A file that may only be read makes a disk that may only be read.
      if (code !== 'EACCES' && code !== 'EROFS') throw openError(path, error);
    }
  }
  try {
    return { fd: openSync(path, constants.O_RDONLY | flags), isReadOnly: true };
  } catch (error) {
    throw openError(path, error);
  }
}

function openError(path: string, cause: unknown): HostError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'ENOENT') {
    return new HostError(
      'NO_DEVICE',
      `${path} does not exist; create it first (truncate -s 1G ${path}), or give a size such as ` +
        '64M for a RAM disk.',
      { cause },
    );
  }
  if (code === 'EACCES') {
    return new HostError(
      'NO_PERMISSION',
      `${path} may not be opened by this user; change its permissions.`,
      { cause },
    );
  }
  const why = code === 'EISDIR' ? 'is a directory' : `cannot be opened (${code ?? 'no reason'})`;
  return new HostError('FAILED', `${path} ${why}; give a disk image to simulate a disk of.`, {
    cause,
  });
}

function checkSize(what: string, sizeBytes: number, sectorSize: number): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    throw new HostError(
      'FAILED',
      `${what} is ${sizeBytes} bytes long, and a disk needs at least one sector; ` +
        'give it a size first (truncate -s 1G FILE).',
    );
  }
  if (sizeBytes % sectorSize !== 0) {
    throw new HostError(
      'FAILED',
      `${what} is ${sizeBytes} bytes long, which is not a multiple of ${sectorSize}, the sector ` +
        `size; extend it (truncate -s %${sectorSize} FILE).`,
    );
  }
}
