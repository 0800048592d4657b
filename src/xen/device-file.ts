/**
 * Opening the kernel's Xen device files, and saying what to do when that fails.
 *
 * The files and the modules behind them: /dev/xen/gntalloc (xen-gntalloc), /dev/xen/evtchn
 * (xen-evtchn), /dev/xen/xenbus (part of the kernel's Xen core, so it cannot be loaded).
 */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HostError, type HostErrorCode } from '../host/index.ts';
import { Errno, errno, libc, SysError } from '../sys/index.ts';

/** Where the kernel's files are. Tests bring folders of their own. */
export interface XenPaths {
  /** Folder of the device files. */
  readonly devXen: string;
  /** Root of sysfs. */
  readonly sys: string;
  /** Root of procfs. */
  readonly proc: string;
}

/** Where Linux keeps the files of Xen. */
export const linuxPaths: XenPaths = { devXen: '/dev/xen', sys: '/sys', proc: '/proc' };

/** The device files by name, with the module that makes each. */
const moduleByDevice = {
  gntalloc: 'xen-gntalloc',
  evtchn: 'xen-evtchn',
  xenbus: undefined,
} as const;

/** One of the device files, by name. */
export type XenDevice = keyof typeof moduleByDevice;

const O_RDWR = 0o2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

/**
 * Opens a device for reading and writing, non-blocking.
 * @throws HostError that names the file, the errno and what to do
 */
export function openXenDevice(paths: XenPaths, device: XenDevice): number {
  const file = join(paths.devXen, device);
  const fd = libc.open(file, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd >= 0) return fd;
  throw describeOpenFailure(paths, device, new SysError('open', errno(), file));
}

function describeOpenFailure(paths: XenPaths, device: XenDevice, cause: SysError): HostError {
  const failed = (code: HostErrorCode, advice: string): HostError =>
    new HostError(code, `cannot open ${cause.path} (${cause.code}): ${advice}`, { cause });

  switch (cause.errno) {
    case Errno.ENOENT:
    case Errno.ENXIO:
    case Errno.ENODEV:
      return failed('NO_DEVICE', explainMissing(paths, device));
    case Errno.EACCES:
    case Errno.EPERM:
      return failed(
        'NO_PERMISSION',
        'run as root, or give a group access with a udev rule such as ' +
          `KERNEL=="xen/${device}", GROUP="disk", MODE="0660"`,
      );
    case Errno.EMFILE:
      return failed(
        'LIMIT',
        'this process has too many open files; raise LimitNOFILE or ulimit -n',
      );
    default:
      return failed('FAILED', cause.message);
  }
}

function explainMissing(paths: XenPaths, device: XenDevice): string {
  const type = hypervisorType(paths);
  if (type !== 'xen') {
    const typeFile = join(paths.sys, 'hypervisor/type');
    const seen = type === undefined ? `there is no ${typeFile}` : `${typeFile} says "${type}"`;
    return `this is not a Xen guest: ${seen}; use --simulate to try without Xen`;
  }
  const module = moduleByDevice[device];
  if (module !== undefined) return `load its module with: modprobe ${module}`;
  if (existsSync(join(paths.devXen, device))) {
    return 'XenStore does not run: in dom0, start xenstored';
  }
  return 'this kernel was built without CONFIG_XEN_XENBUS_FRONTEND';
}

/** What /sys/hypervisor/type says, e.g. `xen`; undefined where there is no hypervisor. */
export function hypervisorType(paths: XenPaths): string | undefined {
  try {
    return readFileSync(join(paths.sys, 'hypervisor/type'), 'utf8').trim();
  } catch {
    return undefined; // No such file: bare metal, or a hypervisor without this interface.
  }
}
