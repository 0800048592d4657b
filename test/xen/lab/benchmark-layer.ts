// What the benchmark needs beside the lab: the generator of load and the servers that this one is
// compared with, with their libraries (about 110 MB). They are this machine's own programs, those
// that `npm run bench` takes, too.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CpioArchive } from './cpio.ts';
import type { Image } from './image.ts';
import { labFolder } from './paths.ts';
import { addProgram } from './shared-libraries.ts';
import { LabError } from './tools.ts';

const programs = [
  { path: '/usr/bin/fio', debianPackage: 'fio' },
  { path: '/usr/bin/nbdkit', debianPackage: 'nbdkit' },
  { path: '/usr/bin/qemu-nbd', debianPackage: 'qemu-utils' },
];
/** nbdkit loads it by name. */
const plugin = '/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so';

/** Makes the layer anew and returns its file; it goes on top of the image's own layers. */
export function buildBenchmarkLayer({ packagesRoot }: Image): string {
  const missing = programs.filter(({ path }) => !existsSync(path));
  if (missing.length > 0) {
    const packages = missing.map(({ debianPackage }) => debianPackage).join(' ');
    throw new LabError(
      `the benchmark needs ${missing.map(({ path }) => path).join(', ')}: ` +
        `apt-get install --no-install-recommends ${packages}`,
    );
  }
  const archive = new CpioArchive();
  for (const { path } of programs) addProgram(archive, packagesRoot, path, path);
  archive.addFile(plugin, readFileSync(plugin), 0o644);
  const file = join(labFolder, 'image/benchmark.cpio');
  writeFileSync(file, archive.finish());
  return file;
}
