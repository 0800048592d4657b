// Which shared libraries a program needs, and where they are: in the unpacked packages if those
// have them, else on this machine. ldd asks the dynamic loader itself.
import { join } from 'node:path';
import { LabError, run } from './tools.ts';

export interface SharedLibrary {
  /** Where the file is now. */
  readonly file: string;
  /** Where the loader looks for it in the image. */
  readonly pathInImage: string;
}

/** All libraries that `program` needs, the loader included. */
export function sharedLibrariesOf(program: string, packagesRoot: string): SharedLibrary[] {
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
export function mergedUsr(path: string): string {
  return /^\/(lib|lib64|bin|sbin)\//.test(path) ? `/usr${path}` : path;
}

function withoutRoot(file: string, root: string): string {
  return file.startsWith(`${root}/`) ? file.slice(root.length) : file;
}
