/**
 * The image that QEMU boots: Xen, a kernel, and dom0's first file system in three layers.
 *
 *   tools    busybox, Xen's tools, e2fsprogs, nbd-client, kernel modules; made once
 *   node     this machine's Node with its libraries (about 100 MB); made once
 *   project  what is tested: build/, the packages' dist/, production dependencies; made each run
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { CpioArchive } from './cpio.ts';
import { unpackKernel } from './kernel-image.ts';
import { collectModules, formatModulesDep } from './kernel-modules.ts';
import { type UnpackedPackages, unpackPackages } from './packages.ts';
import { dom0SourceFolder, labFolder, projectInDom0, repositoryRoot } from './paths.ts';
import { addProgram } from './shared-libraries.ts';
import { run } from './tools.ts';

/** Files on this machine that make up a bootable lab. */
export interface Image {
  readonly xen: string;
  readonly kernel: string;
  readonly kernelRelease: string;
  readonly toolsLayer: string;
  /** The kernel once more, for guests of dom0's. */
  readonly guestKernelLayer: string;
  readonly nodeLayer: string;
  readonly projectLayer: string;
  /** Where the Debian packages are unpacked. */
  readonly packagesRoot: string;
}

const xenTools = ['xenstored', 'xen-init-dom0', 'xenconsoled', 'xl', 'libxl-save-helper'];
const xenStoreTools = ['read', 'write', 'list', 'ls', 'rm', 'exists', 'chmod', 'watch'];
const sbinTools = ['losetup', 'mke2fs', 'e2fsck', 'resize2fs', 'dumpe2fs', 'nbd-client'];

/** xen-blkfront is in the image but only scenarios load it: it takes every vbd in state 1. */
const modules = [
  'xen-evtchn',
  'xen-gntdev',
  'xen-gntalloc',
  'xen-privcmd',
  'xenfs',
  'xen-blkback',
  'xen-blkfront',
  'loop',
  'nbd',
  'ext4',
  'crc32c_generic',
  'vsock_loopback',
  'scsi_debug',
  'virtio_pci',
  'virtio_blk',
];

export function buildImage(log: (line: string) => void): Image {
  const packages = unpackPackages(log);
  const folder = join(labFolder, 'image');
  mkdirSync(folder, { recursive: true });

  const xen = join(folder, `xen-${packages.contentKey}`);
  writeOnce(xen, () => gunzipSync(readFileSync(join(packages.root, 'boot/xen-4.17-amd64.gz'))));
  const kernel = join(folder, `vmlinux-${packages.contentKey}`);
  writeOnce(kernel, () => {
    const name = `boot/vmlinuz-${packages.kernelRelease}`;
    return unpackKernel(readFileSync(join(packages.root, name)));
  });
  const guestKernelLayer = join(folder, `guest-kernel-${packages.contentKey}.cpio`);
  writeOnce(guestKernelLayer, () => {
    const archive = new CpioArchive();
    archive.addFile('/boot/vmlinux', readFileSync(kernel), 0o644);
    return archive.finish();
  });
  const toolsLayer = join(folder, `tools-${toolsKey(packages)}.cpio`);
  writeOnce(toolsLayer, () => {
    log('assembling the tools layer');
    return toolsArchive(packages).finish();
  });
  const nodeLayer = join(folder, `node-${nodeKey()}.cpio`);
  writeOnce(nodeLayer, () => {
    log('assembling the Node layer');
    return nodeArchive(packages).finish();
  });
  const projectLayer = join(folder, 'project.cpio');
  writeFileSync(projectLayer, projectArchive().finish());

  return {
    xen,
    kernel,
    kernelRelease: packages.kernelRelease,
    toolsLayer,
    guestKernelLayer,
    nodeLayer,
    projectLayer,
    packagesRoot: packages.root,
  };
}

function writeOnce(file: string, make: () => Uint8Array): void {
  if (existsSync(file)) return;
  writeFileSync(`${file}.part`, make());
  renameSync(`${file}.part`, file);
}

/** The recipe is part of the key: a change of this folder's code makes new layers. */
function toolsKey(packages: UnpackedPackages): string {
  const hash = createHash('sha256').update(packages.contentKey);
  const code = fileURLToPath(new URL('.', import.meta.url));
  for (const file of ['image.js', 'cpio.js', 'kernel-modules.js', 'shared-libraries.js']) {
    hash.update(readFileSync(join(code, file)));
  }
  for (const script of [initScript, hotplugScript, debianInitramfsScript]) {
    hash.update(readFileSync(script));
  }
  return hash.digest('hex').slice(0, 16);
}

const initScript = join(dom0SourceFolder, 'init.sh');
/** What xl runs for a disk. */
const hotplugScript = join(dom0SourceFolder, 'block-hotplug.sh');
/** What the Debian guest starts with. */
const debianInitramfsScript = join(dom0SourceFolder, '../guest/debian-initramfs.sh');

function nodeKey(): string {
  const { size, mtimeMs } = statSync(process.execPath);
  return createHash('sha256')
    .update(`${process.execPath} ${process.version} ${size} ${mtimeMs}`)
    .digest('hex')
    .slice(0, 16);
}

function toolsArchive({ root, kernelRelease }: UnpackedPackages): CpioArchive {
  const archive = new CpioArchive();
  for (const path of ['/proc', '/sys', '/dev', '/run', '/tmp', '/root', '/mnt', '/etc', '/usr']) {
    archive.addDirectory(path);
  }
  for (const path of ['/bin', '/sbin', '/lib', '/lib64']) {
    archive.addDirectory(`/usr${path}`);
    archive.addSymlink(path, `usr${path}`);
  }
  for (const path of ['/var/lib/xenstored', '/var/lib/xen', '/var/log/xen', '/etc/xen']) {
    archive.addDirectory(path);
  }
  archive.addSymlink('/var/run', '/run');
  archive.addSymlink('/var/lock', '/run');
  archive.addSymlink('/etc/mtab', '/proc/self/mounts');
  archive.addFile(
    '/etc/passwd',
    'root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n',
    0o644,
  );
  archive.addFile('/etc/group', 'root:x:0:\nguest:x:1000:\n', 0o644);
  // The kernel opens it as the standard streams of init, before anything is mounted.
  archive.addCharacterDevice('/dev/console', 5, 1);
  archive.addFile('/init', readFileSync(initScript), 0o755);

  archive.addFile('/etc/xen/scripts/block-lab', readFileSync(hotplugScript), 0o755);
  archive.addFile('/usr/share/lab/debian-initramfs.sh', readFileSync(debianInitramfsScript), 0o755);

  const busybox = join(root, 'bin/busybox');
  archive.addFile('/usr/bin/busybox', readFileSync(busybox), 0o755);
  archive.addSymlink('/usr/bin/sh', 'busybox');
  archive.addSymlink('/usr/bin/env', 'busybox');
  // Its applets stand last in PATH, so that a real program of the same name wins.
  for (const applet of run(busybox, ['--list']).trim().split('\n')) {
    archive.addSymlink(`/usr/lib/busybox/${applet}`, '/usr/bin/busybox');
  }

  const programs = [
    ...xenTools.map((name) => `/usr/lib/xen-4.17/bin/${name}`),
    ...xenStoreTools.map((name) => `/usr/bin/xenstore-${name}`),
    ...sbinTools.map((name) => `/sbin/${name}`),
    '/usr/libexec/xen-qemu-system-i386',
  ];
  for (const program of programs) addProgram(archive, root, join(root, program), program);
  archive.addSymlink('/usr/sbin/mkfs.ext4', 'mke2fs');
  archive.addSymlink('/usr/sbin/fsck.ext4', 'e2fsck');
  // mkfs.ext4 takes its features from here.
  archive.addFile('/etc/mke2fs.conf', readFileSync(join(root, 'etc/mke2fs.conf')), 0o644);

  const collected = collectModules(join(root, 'lib/modules', kernelRelease), modules);
  const modulesFolder = `/usr/lib/modules/${kernelRelease}`;
  for (const { path, content } of collected) {
    archive.addFile(`${modulesFolder}/${path}`, content, 0o644);
  }
  archive.addFile(`${modulesFolder}/modules.dep`, formatModulesDep(collected), 0o644);
  return archive;
}

function nodeArchive({ root }: UnpackedPackages): CpioArchive {
  const archive = new CpioArchive();
  addProgram(archive, root, realpathSync(process.execPath), '/usr/bin/node');
  return archive;
}

function projectArchive(): CpioArchive {
  const archive = new CpioArchive();
  const add = (path: string): void => addTree(archive, join(repositoryRoot, path), path);
  archive.addFile(
    '/usr/share/lab/README.md',
    readFileSync(join(repositoryRoot, 'README.md')),
    0o644,
  );
  add('package.json');
  add('build');
  for (const name of ['xenstore-client', 'nbd-server-ts']) {
    add(`src/${name}/package.json`);
    add(`src/${name}/dist`);
    archive.addSymlink(`${projectInDom0}/node_modules/${name}`, `../src/${name}`);
  }
  for (const path of productionDependencies()) add(path);
  return archive;
}

/** Maps, declarations and build information are of no use in dom0. */
const unwanted = /\.(map|d\.ts|tsbuildinfo|md)$/;

function addTree(archive: CpioArchive, source: string, path: string): void {
  if (!statSync(source).isDirectory()) {
    if (unwanted.test(basename(source))) return;
    archive.addFile(`${projectInDom0}/${path}`, readFileSync(source), statSync(source).mode);
    return;
  }
  for (const name of readdirSync(source).sort()) {
    addTree(archive, join(source, name), `${path}/${name}`);
  }
}

interface LockFile {
  packages: Record<string, { dev?: boolean; devOptional?: boolean; link?: boolean }>;
}

/** Folders of node_modules that `npm ci --omit=dev` would bring, from the lock file. */
function productionDependencies(): string[] {
  const text = readFileSync(join(repositoryRoot, 'package-lock.json'), 'utf8');
  const { packages } = JSON.parse(text) as LockFile;
  return Object.entries(packages)
    .filter(([path, { dev, devOptional, link }]) => {
      if (!path.startsWith('node_modules/') || dev || devOptional || link) return false;
      return existsSync(join(repositoryRoot, path)); // not the packages of other platforms
    })
    .map(([path]) => path);
}
