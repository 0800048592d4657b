/**
 * The Debian packages of the lab: downloaded by name and unpacked into a folder. Nothing of them is
 * installed on this machine.
 *
 * `apt-get download` is used because `apt-get install --download-only` leaves out what happens to
 * be installed. Libraries that a program needs beside these come from this machine, see
 * shared-libraries.ts.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { labFolder } from './paths.ts';
import { LabError, run } from './tools.ts';

const packageNames = [
  'xen-hypervisor-4.17-amd64',
  'xen-utils-4.17',
  'xenstore-utils',
  'libxencall1',
  'libxendevicemodel1',
  'libxenevtchn1',
  'libxenforeignmemory1',
  'libxengnttab1',
  'libxenhypfs1',
  'libxenmisc4.17',
  'libxenstore4',
  'libxentoolcore1',
  'libxentoollog1',
  'libyajl2',
  'nbd-client',
  'e2fsprogs',
  'libext2fs2',
  'libcom-err2',
  'libss2',
  'libblkid1',
  'libuuid1',
  'busybox-static',
  'mount', // losetup, which can set a sector size
  'qemu-system-xen', // the back end for disks in files
  // What the programs above need and a small installation may not have.
  'libbz2-1.0',
  'libdw1',
  'libelf1',
  'libfdt1',
  'libffi8',
  'libglib2.0-0',
  'libgmp10',
  'libgnutls30',
  'libgstreamer-plugins-base1.0-0',
  'libgstreamer1.0-0',
  'libhogweed6',
  'libidn2-0',
  'libjpeg62-turbo',
  'liblz4-1',
  'liblzma5',
  'libnettle8',
  'libnl-3-200',
  'libnl-genl-3-200',
  'libopus0',
  'liborc-0.4-0',
  'libp11-kit0',
  'libpcre2-8-0',
  'libpixman-1-0',
  'libsasl2-2',
  'libsmartcols1',
  'libspice-server1',
  'libssl3',
  'libtasn1-6',
  'libudev1',
  'libunistring2',
  'libunwind8',
  'libusb-1.0-0',
  'libzstd1',
  'zlib1g',
];

/** The cloud kernel cannot be dom0; this one can. */
const KERNEL_META_PACKAGE = 'linux-image-amd64';

export interface UnpackedPackages {
  /** Folder that looks like the root of a Debian system. */
  readonly root: string;
  /** Changes when any package does. */
  readonly contentKey: string;
  /** e.g. `6.1.0-56-amd64` */
  readonly kernelRelease: string;
}

/** Brings the packages, from .lab where it has them. */
export function unpackPackages(log: (line: string) => void): UnpackedPackages {
  const downloads = join(labFolder, 'packages');
  mkdirSync(downloads, { recursive: true });
  const missing = packageNames.filter((name) => findPackage(downloads, name) === undefined);
  if (findKernelPackage(downloads) === undefined) missing.push(kernelPackageName());
  if (missing.length > 0) {
    log(`downloading ${missing.length} Debian packages`);
    download(downloads, missing);
  }

  const kernelFile = findKernelPackage(downloads);
  if (kernelFile === undefined) throw new LabError('apt-get downloaded no kernel package');
  const files = packageNames.map((name) => findPackage(downloads, name) ?? '');
  files.push(kernelFile);
  const contentKey = createHash('sha256').update(files.join('\n')).digest('hex').slice(0, 16);
  const root = join(labFolder, `root-${contentKey}`);
  if (!existsSync(root)) {
    log('unpacking the packages');
    const building = `${root}.part`;
    rmSync(building, { recursive: true, force: true });
    mkdirSync(building);
    for (const file of files) run('dpkg', ['-x', join(downloads, file), building]);
    renameSync(building, root);
  }
  return { root, contentKey, kernelRelease: kernelReleaseOf(kernelFile) };
}

function findPackage(downloads: string, name: string): string | undefined {
  return readdirSync(downloads).find((file) => file.startsWith(`${name}_`));
}

function findKernelPackage(downloads: string): string | undefined {
  const files = readdirSync(downloads).filter((file) => /^linux-image-\d/.test(file));
  return files.sort().at(-1);
}

function kernelReleaseOf(file: string): string {
  return file.slice('linux-image-'.length, file.indexOf('_'));
}

/** The package that the kernel's meta package stands for at present. */
function kernelPackageName(): string {
  const text = run('apt-cache', ['depends', KERNEL_META_PACKAGE]);
  const name = /Depends: (linux-image-\d\S*)/.exec(text)?.[1];
  if (name === undefined) {
    throw new LabError(`apt knows no ${KERNEL_META_PACKAGE}: run apt-get update, on Debian 12`);
  }
  return name;
}

function download(folder: string, names: string[]): void {
  try {
    run('apt-get', ['download', '--quiet', ...names], { cwd: folder });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LabError(`${reason} (run apt-get update; the lab wants the packages of Debian 12)`, {
      cause: error,
    });
  }
}
