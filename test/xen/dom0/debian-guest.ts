/**
 * A guest that is a real Debian under systemd, on a disk that the lab has made (see
 * test/xen/lab/debian-root.ts): dom0's /dev/vda, the guest's xvda, driven by the guest's kernel.
 */
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { run } from './commands.ts';
import { diskSpecification, GuestDomain } from './guest-domain.ts';
import type { Lab } from './scenario.ts';

const MEMORY_MIB = 768;
/** For one command of an emulated machine that shares its processor with others. */
const COMMAND_TIMEOUT_MS = 240_000;
const RAMDISK = '/tmp/debian.cpio';
/** What the first file system of the guest loads. */
const modules = ['xen-blkfront', 'crc32c_generic', 'ext4'];

export class DebianGuest {
  readonly domain: GuestDomain = GuestDomain.named('debian');
  readonly #lab: Lab;
  readonly #disks: readonly string[];

  private constructor(lab: Lab, dataDisk: string) {
    this.#lab = lab;
    this.#disks = [diskSpecification('xvda', '/dev/vda'), diskSpecification('xvdb', dataDisk)];
  }

  /** Boots it for the first time; `dataDisk` is a block device of dom0's, the guest's xvdb. */
  static async create(lab: Lab, dataDisk: string): Promise<DebianGuest> {
    await run('modprobe', '-a', 'virtio_pci', 'virtio_blk');
    await packRamdisk();
    const guest = new DebianGuest(lab, dataDisk);
    lab.cleanUp(() => guest.domain.destroy());
    await guest.boot();
    return guest;
  }

  /** Creates its domain, which must not be there, and waits until systemd has started all of it. */
  async boot(): Promise<void> {
    await this.domain.start(this.#lab, {
      ramdisk: RAMDISK,
      memoryMib: MEMORY_MIB,
      disks: this.#disks,
    });
    const startMs = Date.now();
    await this.tell('systemctl is-system-running --wait');
    this.#lab.step(`systemd has started everything, ${Date.now() - startMs} ms later`);
  }

  /** Runs a script, which must succeed; what it printed. */
  async tell(script: string): Promise<string> {
    const { status, output } = await this.domain.ask('sh', { script }, COMMAND_TIMEOUT_MS);
    if (status !== 0) throw new Error(`in the guest, exit code ${status}: ${script}\n${output}`);
    return output;
  }

  /** As {@link tell}, with what was typed and what it printed in the run's report. */
  async type(command: string): Promise<string> {
    const startMs = Date.now();
    const output = await this.tell(command);
    this.#lab.step(`# ${command}    (${Date.now() - startMs} ms)`);
    if (output !== '') this.#lab.step(output.replace(/^/gm, '        '));
    return output;
  }
}

/** busybox, the modules for the root file system, and a script. */
async function packRamdisk(): Promise<void> {
  const folder = '/tmp/debian-initramfs';
  mkdirSync(join(folder, 'bin'), { recursive: true });
  mkdirSync(join(folder, 'lib'));
  copyFileSync('/usr/bin/busybox', join(folder, 'bin/busybox'));
  symlinkSync('busybox', join(folder, 'bin/sh'));
  copyFileSync('/usr/share/lab/debian-initramfs.sh', join(folder, 'init'));
  chmodSync(join(folder, 'init'), 0o755);
  const release = (await run('uname', '-r')).trim();
  const source = join('/usr/lib/modules', release);
  const paths = inLoadOrder(readFileSync(join(source, 'modules.dep'), 'utf8'), modules);
  for (const path of paths) copyFileSync(join(source, path), join(folder, 'lib', basename(path)));
  const names = paths.map((path) => basename(path));
  writeFileSync(join(folder, 'modules'), names.join('\n'));
  await run('sh', '-c', `cd ${folder} && find . | cpio -o -H newc > ${RAMDISK}`);
}

/** Paths of modules, each after what it depends on, which its line names nearest first. */
function inLoadOrder(modulesDep: string, names: readonly string[]): string[] {
  const lines = modulesDep.split('\n').map((line) => line.split(/:? +/).filter(Boolean));
  const ordered = names.flatMap((name) => {
    const line = lines.find(([path = '']) => basename(path) === `${name}.ko`);
    if (line === undefined) throw new Error(`no module ${name}`);
    return line.map((path) => path.replace(/:$/, '')).reverse();
  });
  return [...new Set(ordered)];
}
