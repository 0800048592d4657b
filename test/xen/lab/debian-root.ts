/**
 * The disk of a guest that is a real Debian with systemd: Debian's own packages, unpacked and
 * entered into dpkg's database as installed, this machine's Node as the package nodejs, modules of
 * the kernel, and the lab's agent as a service. It runs no installation script: what those would
 * have done, and is needed, is done here.
 *
 * The packages are unpacked once; the disk is made for each run, with what is tested: the Debian
 * package of this project, and the agent.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { collectModules } from './kernel-modules.ts';
import type { UnpackedPackages } from './packages.ts';
import { labFolder, projectInDom0, repositoryRoot } from './paths.ts';
import { LabError, run } from './tools.ts';

/** apt adds what these need. */
const packageNames = [
  'apt',
  'base-files',
  'base-passwd',
  'bash',
  'coreutils',
  'dash',
  'debianutils',
  'diffutils',
  'dpkg',
  'e2fsprogs',
  'findutils',
  'grep',
  'gzip',
  'hostname',
  'init-system-helpers',
  'kmod',
  'libc-bin',
  'libstdc++6',
  'login',
  'mawk',
  'mount',
  'nbd-client',
  'passwd',
  'procps',
  'sed',
  'systemd-sysv',
  'tar',
  'udev',
  'usr-is-merged',
  'util-linux',
];

/** What a Debian guest of Xen finds, and what it needs here. */
const modules = [
  'xen-blkfront',
  'xen-evtchn',
  'xen-gntalloc',
  'xen-gntdev',
  'xenfs',
  'ext4',
  'crc32c_generic',
  'nbd',
  'loop',
  'autofs4',
  'fuse',
  'configfs',
];

/** Space for the tree and what the guest writes. */
const DISK_SIZE = '900M';

/** The guest finds the Debian package of this project below root's home, as the README has it. */
const HOME = 'root';

/** Makes the disk; returns its file. */
export async function buildDebianDisk(
  packages: UnpackedPackages,
  log: (line: string) => void,
): Promise<string> {
  const tree = debianTree(packages, log);
  const folder = join(labFolder, 'debian-run');
  rmSync(folder, { recursive: true, force: true });
  // Hard links: nothing below is written to, new files come in beside it.
  run('cp', ['-al', tree, folder]);
  addProject(folder);
  log('packing the Debian package');
  const deb = join(folder, HOME, 'build/deb');
  // It takes a while, in which another machine can run.
  await promisify(execFile)(join(repositoryRoot, '.ci/package-deb'), [deb]);

  const disk = join(labFolder, 'image', 'debian.img');
  rmSync(disk, { force: true });
  const features = ['-q', '-t', 'ext4', '-F', '-E', 'root_owner=0:0,lazy_itable_init=1'];
  runOf(tree, 'mke2fs', 'usr/sbin/mke2fs', [...features, '-d', folder, disk, DISK_SIZE]);
  rmSync(folder, { recursive: true, force: true });
  return disk;
}

function addProject(root: string): void {
  const target = join(root, projectInDom0);
  const add = (path: string): void =>
    cpSync(join(repositoryRoot, path), join(target, path), { recursive: true, dereference: true });
  for (const path of ['package.json', 'build/src', 'build/test/xen', 'build/test/support']) {
    add(path);
  }
  // What the agent imports; the daemon that is tested comes from the Debian package.
  for (const name of ['xenstore-client', 'nbd-server-ts']) {
    const package_ = join('node_modules', name);
    cpSync(join(repositoryRoot, 'src', name, 'dist'), join(target, package_, 'dist'), {
      recursive: true,
    });
    copyFileSync(
      join(repositoryRoot, 'src', name, 'package.json'),
      join(target, package_, 'package.json'),
    );
  }
  for (const name of readdirSync(join(repositoryRoot, 'node_modules'))) {
    if (name === 'koffi' || name === '@koromix') add(join('node_modules', name));
  }
}

/** The unpacked packages with everything but what is tested. */
function debianTree(packages: UnpackedPackages, log: (line: string) => void): string {
  const downloads = downloadPackages(log);
  const files = readdirSync(downloads).filter((file) => file.endsWith('.deb'));
  const recipe = readFileSync(fileURLToPath(import.meta.url));
  const key = createHash('sha256')
    .update([packages.contentKey, process.version, ...files.sort()].join('\n'))
    .update(recipe)
    .digest('hex')
    .slice(0, 16);
  const tree = join(labFolder, `debian-${key}`);
  if (existsSync(tree)) return tree;

  log(`unpacking ${files.length} Debian packages for a guest`);
  const root = `${tree}.part`;
  rmSync(root, { recursive: true, force: true });
  for (const path of ['bin', 'sbin', 'lib', 'lib64']) {
    mkdirSync(join(root, 'usr', path), { recursive: true });
    symlinkSync(`usr/${path}`, join(root, path));
  }
  const database = new DpkgDatabase(root);
  for (const file of files) {
    const path = join(downloads, file);
    // Not dpkg -x: it would put folders in the place of the links above.
    const unpack = 'deb=$1; shift; dpkg-deb --fsys-tarfile "$deb" | tar -xv "$@"';
    const how = ['-C', root, '--keep-directory-symlink', ...unwanted];
    const listed = run('bash', ['-o', 'pipefail', '-c', unpack, '', path, ...how]);
    database.add(run('dpkg-deb', ['-f', path]), pathsOf(listed));
  }
  addNode(root, database);
  addModules(root, packages);
  configure(root);
  renameSync(root, tree);
  return tree;
}

const unwanted = ['doc', 'man', 'locale', 'info', 'i18n', 'zoneinfo'].map(
  (name) => `--exclude=./usr/share/${name}`,
);

/** What apt would install on an empty machine. */
function downloadPackages(log: (line: string) => void): string {
  const key = createHash('sha256').update(packageNames.join()).digest('hex').slice(0, 8);
  const folder = join(labFolder, `debian-packages-${key}`);
  if (existsSync(folder)) return folder;
  log('downloading the Debian packages of a guest');
  const building = `${folder}.part`;
  mkdirSync(join(building, 'partial'), { recursive: true });
  const status = join(building, 'status');
  writeFileSync(status, '');
  const settings = {
    'Dir::State::status': status,
    'Dir::Cache::archives': building,
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'Debug::NoLocking': '1',
    'APT::Sandbox::User': '',
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  const command = ['install', '--download-only', '--yes', '--no-install-recommends'];
  try {
    run('apt-get', [...options, ...command, ...packageNames]);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LabError(`${reason} (run apt-get update; the lab wants the packages of Debian 12)`, {
      cause: error,
    });
  }
  renameSync(building, folder);
  return folder;
}

/** What tar has listed, as dpkg keeps it. */
function pathsOf(listed: string): string[] {
  const paths = listed.split('\n').map((line) => line.replace(/^\./, '').replace(/\/$/, ''));
  return ['/.', ...paths.filter((path) => path !== '')];
}

/** dpkg's database of what is installed. */
class DpkgDatabase {
  readonly #folder: string;

  constructor(root: string) {
    this.#folder = join(root, 'var/lib/dpkg');
    for (const name of ['info', 'updates', 'triggers', 'alternatives', 'parts']) {
      mkdirSync(join(this.#folder, name), { recursive: true });
    }
    writeFileSync(join(this.#folder, 'info/format'), '1\n');
    writeFileSync(join(this.#folder, 'available'), '');
  }

  /** Enters a package with this control paragraph as installed. */
  add(control: string, paths: readonly string[]): void {
    const field = (name: string): string =>
      new RegExp(`^${name}: (.*)$`, 'm').exec(control)?.[1] ?? '';
    const name = field('Package');
    const qualifier = field('Multi-Arch') === 'same' ? `:${field('Architecture')}` : '';
    const list = join(this.#folder, 'info', `${name}${qualifier}.list`);
    writeFileSync(list, `${paths.join('\n')}\n`);
    const entry = control.trim().replace(/^Package: .*$/m, '$&\nStatus: install ok installed');
    writeFileSync(join(this.#folder, 'status'), `${entry}\n\n`, { flag: 'a' });
  }
}

/** This machine's Node, under the name of Debian's package of it. */
function addNode(root: string, database: DpkgDatabase): void {
  copyFileSync(realpathSync(process.execPath), join(root, 'usr/bin/node'));
  chmodSync(join(root, 'usr/bin/node'), 0o755);
  const control = [
    'Package: nodejs',
    'Section: javascript',
    'Priority: optional',
    'Maintainer: The lab <root@localhost>',
    'Architecture: amd64',
    `Version: ${process.versions.node}`,
    'Depends: libc6, libstdc++6',
    'Description: Node, as it is on the machine that made this disk',
  ];
  database.add(control.join('\n'), ['/.', '/usr', '/usr/bin', '/usr/bin/node']);
}

function addModules(root: string, { root: unpacked, kernelRelease }: UnpackedPackages): void {
  const source = join(unpacked, 'lib/modules', kernelRelease);
  const target = join(root, 'usr/lib/modules', kernelRelease);
  for (const { path, content } of collectModules(source, modules)) {
    mkdirSync(dirname(join(target, path)), { recursive: true });
    writeFileSync(join(target, path), content);
  }
  for (const name of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    copyFileSync(join(source, name), join(target, name));
  }
  runOf(root, 'depmod', 'usr/bin/kmod', ['-b', root, kernelRelease]);
}

/** What installation scripts of Debian's would have done, as far as it is of use. */
function configure(root: string): void {
  const write = (path: string, text: string, mode = 0o644): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text, { mode });
  };
  const read = (path: string): string => readFileSync(join(root, path), 'utf8');
  write('etc/passwd', read('usr/share/base-passwd/passwd.master'));
  write('etc/group', read('usr/share/base-passwd/group.master'));
  write('etc/shadow', 'root:*:20000::::::\n', 0o600);
  write('etc/gshadow', '', 0o600);
  write('etc/nsswitch.conf', read('usr/share/libc-bin/nsswitch.conf'));
  write('etc/hostname', 'debian\n');
  write('etc/hosts', '127.0.0.1 localhost debian\n');
  write('etc/fstab', '/dev/xvda / ext4 defaults 0 1\n');
  // With one, nothing is asked at the first boot.
  write('etc/machine-id', `${'0123456789abcdef'.repeat(2)}\n`);
  // Nobody loses power here, and each of its calls to the disk takes long.
  write('etc/dpkg/dpkg.cfg.d/lab', 'force-unsafe-io\n');
  // systemd gives a disk 90 s after the start of the boot: here that is four seconds of a real one.
  write('etc/systemd/system.conf.d/lab.conf', '[Manager]\nDefaultDeviceTimeoutSec=10min\n');
  write('etc/apt/apt.conf.d/99lab', 'APT::Sandbox::User "root";\n');
  for (const [link, target] of [
    ['etc/mtab', '../proc/self/mounts'],
    ['usr/bin/awk', 'mawk'],
    ['usr/bin/sh', 'dash'],
    // Debian's systemd enables it when it is installed: mounts that need a network come with it.
    [
      'etc/systemd/system/multi-user.target.wants/remote-fs.target',
      '/lib/systemd/system/remote-fs.target',
    ],
    ['etc/systemd/system/multi-user.target.wants/lab-agent.service', '../lab-agent.service'],
  ] as const) {
    mkdirSync(dirname(join(root, link)), { recursive: true });
    if (!existsSync(join(root, link))) symlinkSync(target, join(root, link));
  }
  write('etc/systemd/system/lab-agent.service', AGENT_UNIT);
  const mask = (folder: string, names: readonly string[]): void => {
    mkdirSync(join(root, 'etc/systemd', folder), { recursive: true });
    for (const name of names) symlinkSync('/dev/null', join(root, 'etc/systemd', folder, name));
  };
  mask('system', unneededUnits);
  const generators = readdirSync(join(root, 'usr/lib/systemd/system-generators'));
  mask(
    'system-generators',
    generators.filter((name) => name !== 'systemd-fstab-generator'),
  );
  write('etc/systemd/system/systemd-udev-trigger.service.d/lab.conf', UDEV_TRIGGER);
}

/** Modules, drivers and 64 virtual consoles are of no use here, and take ten seconds. */
const UDEV_TRIGGER = `[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add ${['block', 'mem', 'misc', 'net', 'xen']
  .map((name) => `--subsystem-match=${name}`)
  .join(' ')}
`;

/**
 * Each takes seconds of an emulated machine, and nothing here uses what it brings. Nor what the
 * generators bring, which run at each start and reload of systemd, but that of /etc/fstab.
 */
const unneededUnits = [
  'apt-daily-upgrade.timer',
  'apt-daily.timer',
  'dev-hugepages.mount',
  'dev-mqueue.mount',
  'getty-static.service',
  'getty.target',
  'kmod-static-nodes.service',
  'modprobe@configfs.service',
  'modprobe@dm_mod.service',
  'modprobe@drm.service',
  'modprobe@efi_pstore.service',
  'modprobe@fuse.service',
  'modprobe@loop.service',
  'proc-sys-fs-binfmt_misc.automount',
  'sys-fs-fuse-connections.mount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'systemd-ask-password-console.path',
  'systemd-ask-password-wall.path',
  'systemd-binfmt.service',
  'systemd-hwdb-update.service',
  'systemd-journal-flush.service',
  'systemd-pstore.service',
  'systemd-random-seed.service',
  'systemd-remount-fs.service',
  'systemd-sysctl.service',
  'systemd-tmpfiles-clean.timer',
  'systemd-update-utmp.service',
  'systemd-update-utmp-runlevel.service',
  'systemd-user-sessions.service',
  'systemd-logind.service',
];

const AGENT_UNIT = `[Unit]
Description=Agent of the lab
[Service]
Environment=LAB_POLL_MS=500
ExecStart=/usr/bin/node ${projectInDom0}/build/test/xen/guest/agent.js
StandardOutput=journal+console
StandardError=journal+console
# What it starts is told apart from it, and outlives it for as long as the machine runs.
KillMode=process
`;

/** Runs a program of the tree on this machine, with the tree's own loader and libraries. */
function runOf(root: string, name: string, program: string, args: readonly string[]): void {
  const loader = join(root, 'usr/lib64/ld-linux-x86-64.so.2');
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  const how = ['--argv0', name, '--library-path', libraries];
  // A link of the tree to an absolute path would lead out of it.
  const target = existsSync(loader) ? loader : join(libraries, 'ld-linux-x86-64.so.2');
  run(target, [...how, join(root, program), ...args]);
}
