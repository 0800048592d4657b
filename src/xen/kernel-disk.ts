/**
 * Taking a vbd from the kernel's xen-blkfront, and handing it back.
 *
 * The kernel does not protect a disk that is in use: an `unbind` of a mounted one succeeds, and the
 * file system then reads errors. So we look for holders first, and open the disk exclusively while
 * the driver is detached: the same claim that mounting, swapping and RAID make, so nobody can begin
 * to use the disk between our look and the unbind.
 *
 * Handing back has a limit of the kernel's. It keeps the state it last wrote for each device, and
 * xen-blkfront answers a backend in InitWait only while that is Initialising. Unbinding makes it
 * Closed, and nothing makes it Initialising again but a resume of the whole guest or a new device
 * object, which comes when the toolstack detaches and attaches the vbd. So a vbd that xen-blkfront
 * has driven cannot return to it: it would bind and no disk would appear. One that it never drove,
 * because it was not loaded or drivers_autoprobe was off, can be given to it.
 */

import { closeSync, constants, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { HostError } from '../host/index.ts';
import { closeFd, Errno, errno, libc, SysError } from '../sys/index.ts';
import { linuxPaths, type XenPaths } from './device-file.ts';
import { kernelDriverOf } from './kernel-driver.ts';

/** The name under which xen-blkfront registers on the xen bus. */
const BLKFRONT = 'vbd';

const O_RDONLY = 0;
const O_EXCL = 0o200;
const O_CLOEXEC = 0o2000000;

/** Paths of a Linux machine, with the folder of its block devices. */
export interface DiskPaths extends XenPaths {
  readonly dev: string;
}

/** Where Linux keeps what is known of its disks. */
export const linuxDiskPaths: DiskPaths = { ...linuxPaths, dev: '/dev' };

/** A block device of the kernel's: a disk or one of its partitions. */
interface BlockDevice {
  readonly name: string;
  /** Its folder in sysfs. */
  readonly folder: string;
  /** `major:minor` */
  readonly number: string;
}

/**
 * Detaches the kernel's driver from `vbdId`; the vbd is then at 6/6 and its block device gone. Does
 * nothing when no driver has it.
 * @throws HostError when the disk is mounted, used as swap, part of another device, or opened
 *   exclusively; it says by what. The vbd is not touched then.
 */
export function detachKernelDriver(vbdId: number, paths: DiskPaths = linuxDiskPaths): void {
  const driver = kernelDriverOf(vbdId, paths.sys);
  if (driver === undefined) return;
  const disk = diskOf(vbdId, paths);
  if (disk === undefined) {
    writeToDriver(vbdId, driver, 'unbind', paths);
    return;
  }

  const holder = findHolder(disk, paths);
  if (holder !== undefined) throw refusal(vbdId, disk.name, holder);
  const claim = claimExclusively(vbdId, disk, paths);
  try {
    // Seen again under the claim: from now on no one can start to use it.
    const lateHolder = findHolder(disk, paths);
    if (lateHolder !== undefined) throw refusal(vbdId, disk.name, lateHolder);
    writeToDriver(vbdId, driver, 'unbind', paths);
  } finally {
    closeFd(claim);
  }
}

/**
 * Whether xen-blkfront would make a disk of `vbdId` if it were bound, which is decided by the state
 * that the kernel remembers, not by the one in XenStore.
 */
export function kernelWouldConnect(vbdId: number, paths: DiskPaths = linuxDiskPaths): boolean {
  const state = readText(join(paths.sys, 'bus/xen/devices', `vbd-${vbdId}`, 'state'));
  return state === 'Initialising';
}

/**
 * Gives `vbdId` to xen-blkfront. The vbd must stand at 1 with its backend at 2 (InitWait) and be
 * free of our keys.
 * @throws HostError when xen-blkfront is not loaded, or has driven this vbd before and so would not
 *   connect to it again
 */
export function attachKernelDriver(vbdId: number, paths: DiskPaths = linuxDiskPaths): void {
  if (!readFolder(join(paths.sys, 'bus/xen/drivers')).includes(BLKFRONT)) {
    const advice = 'load it with: modprobe xen-blkfront';
    throw new HostError('NO_DEVICE', `the kernel has no driver for vbd ${vbdId}: ${advice}`);
  }
  if (!kernelWouldConnect(vbdId, paths)) {
    throw new HostError(
      'FAILED',
      `the kernel cannot take vbd ${vbdId} back: xen-blkfront closed it once and does not connect ` +
        'again to the same device; detach and attach it from the toolstack (xl block-detach, ' +
        'xl block-attach) or restart the guest',
    );
  }
  writeToDriver(vbdId, BLKFRONT, 'bind', paths);
}

/** The kernel's disk of `vbdId`, e.g. `xvda`; undefined when it has none. */
export function kernelDiskName(
  vbdId: number,
  paths: DiskPaths = linuxDiskPaths,
): string | undefined {
  return diskOf(vbdId, paths)?.name;
}

/** What uses the kernel's disk of `vbdId`, in words; undefined when nothing does. */
export function kernelDiskHolder(
  vbdId: number,
  paths: DiskPaths = linuxDiskPaths,
): string | undefined {
  const disk = diskOf(vbdId, paths);
  return disk === undefined ? undefined : findHolder(disk, paths);
}

function diskOf(vbdId: number, paths: DiskPaths): BlockDevice | undefined {
  const folder = join(paths.sys, 'bus/xen/devices', `vbd-${vbdId}`, 'block');
  const [name] = readFolder(folder);
  return name === undefined ? undefined : blockDevice(join(folder, name), name);
}

function blockDevice(folder: string, name: string): BlockDevice {
  return { name, folder, number: readText(join(folder, 'dev')) };
}

/** The disk first, then its partitions: folders inside it that have a device number. */
function withPartitions(disk: BlockDevice): BlockDevice[] {
  const partitions = readFolder(disk.folder)
    .filter((name) => name.startsWith(disk.name))
    .map((name) => blockDevice(join(disk.folder, name), name));
  return [disk, ...partitions].filter(({ number }) => number !== '');
}

function findHolder(disk: BlockDevice, paths: DiskPaths): string | undefined {
  const mounts = readText(join(paths.proc, 'self/mountinfo')).split('\n');
  const swaps = readText(join(paths.proc, 'swaps')).split('\n');
  for (const device of withPartitions(disk)) {
    // mountinfo: id, parent, major:minor, root, mount point, ... (proc(5)).
    const mount = mounts.map((line) => line.split(' ')).find((words) => words[2] === device.number);
    if (mount !== undefined) return `${device.name} is mounted on ${mount[4] ?? '?'}`;
    const file = join(paths.dev, device.name);
    if (swaps.some((line) => line.split(/\s/)[0] === file)) return `${device.name} is used as swap`;
    const [above] = readFolder(join(device.folder, 'holders'));
    if (above !== undefined) return `${device.name} is part of ${above}`;
  }
  return undefined;
}

function claimExclusively(vbdId: number, disk: BlockDevice, paths: DiskPaths): number {
  const file = join(paths.dev, disk.name);
  // On a block device O_EXCL without O_CREAT fails with EBUSY while anyone claims it (open(2)).
  const fd = libc.open(file, O_RDONLY | O_EXCL | O_CLOEXEC, 0);
  if (fd >= 0) return fd;
  const cause = new SysError('open', errno(), file);
  if (cause.errno === Errno.EBUSY) {
    throw refusal(vbdId, disk.name, `another program has ${file} open exclusively`, cause);
  }
  throw new HostError('FAILED', `cannot see whether ${file} is in use: ${cause.message}`, {
    cause,
  });
}

function refusal(vbdId: number, name: string, holder: string, cause?: Error): HostError {
  return new HostError(
    'FAILED',
    `vbd ${vbdId} is the kernel's ${name} and in use: ${holder}; unmount or release it first`,
    cause === undefined ? {} : { cause },
  );
}

function writeToDriver(vbdId: number, driver: string, file: string, paths: DiskPaths): void {
  const path = join(paths.sys, 'bus/xen/drivers', driver, file);
  try {
    // The file can be written and not read, and must not be made when it is missing.
    const fd = openSync(path, constants.O_WRONLY);
    try {
      writeSync(fd, `vbd-${vbdId}`);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
      const advice = 'only root may attach and detach drivers';
      throw new HostError('NO_PERMISSION', `cannot write ${path} (${code}): ${advice}`, {
        cause: error,
      });
    }
    throw new HostError('FAILED', `cannot ${file} vbd-${vbdId} by ${path}: ${message}`, {
      cause: error,
    });
  }
}

function readFolder(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return []; // No such folder: no disk, no partitions, no holders, no driver.
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
