// Which shared libraries a program needs, and where they are: in the unpacked packages if those
// have them, else on this machine. ldd asks the dynamic loader itself.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CpioArchive } from './cpio.ts';
import { LabError, run } from './tools.ts';

interface SharedLibrary {
  /** Where the file is now. */
  readonly file: string;
  /** Where the loader looks for it in the image. */
  readonly pathInImage: string;
}

/** Adds a program under `path`, and the libraries it needs that are not there yet. */
export function addProgram(
  archive: CpioArchive,
  packagesRoot: string,
  file: string,
  path: string,
): void {
  archive.addFile(mergedUsr(path), readFileSync(file), 0o755);
  for (const library of sharedLibrariesOf(file, packagesRoot)) {
    if (archive.has(library.pathInImage)) continue;
    archive.addFile(library.pathInImage, readFileSync(library.file), 0o755);
  }
}

/** All libraries that `program` needs, the loader included. */
function sharedLibrariesOf(program: string, packagesRoot: string): SharedLibrary[] {
  const folders = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'];
  const searchPath = folders.map((folder) => join(packagesRoot, folder)).join(':');
  const text = run('ldd', [program], { env: { LD_LIBRARY_PATH: searchPath } });
  const libraries: SharedLibrary[] = [];
  for (const line of text.split('\n')) {
    if (line.includes('not found')) throw new LabError(`${program} needs ${line.trim()}`);
    const file = /(?:=>\s+|^\s*)(\/\S+)\s+\(0x/.exec(line)?.[1];
    if (file === undefined) continue;
    libraries.push({ file, pathInImage: mergedUsr(withoutRoot(file, packagesRoot)) });
  }
  return libraries;
}

/** The image has /lib, /lib64, /bin and /sbin as links into /usr, as Debian has. */
function mergedUsr(path: string): string {
  return /^\/(lib|lib64|bin|sbin)\//.test(path) ? `/usr${path}` : path;
}

function withoutRoot(file: string, root: string): string {
  return file.startsWith(`${root}/`) ? file.slice(root.length) : file;
}
