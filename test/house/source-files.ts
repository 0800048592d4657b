// The own TypeScript of the project, by walking the folders: it works in a packed copy as well.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The nearest folder above this file that has a package lock: the repository. */
function findRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package-lock.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('no package-lock.json in any folder above');
    folder = parent;
  }
  return folder;
}

export const ROOT: string = findRoot();

const SKIPPED = new Set(['node_modules', 'dist', 'build', '.tap', '.lab', '.git']);

export interface SourceFile {
  /** Relative to the repository, with slashes. */
  readonly path: string;
  readonly text: string;
}

/** All files below `folder` (relative to the repository) whose name ends in one of `endings`. */
export function filesBelow(folder: string, endings: readonly string[]): SourceFile[] {
  const files: SourceFile[] = [];
  const start = join(ROOT, folder);
  if (!existsSync(start)) return files;
  for (const entry of readdirSync(start, { withFileTypes: true })) {
    const path = join(start, entry.name);
    if (entry.isDirectory()) {
      if (!SKIPPED.has(entry.name)) files.push(...filesBelow(relative(ROOT, path), endings));
    } else if (endings.some((ending) => entry.name.endsWith(ending))) {
      files.push({ path: relative(ROOT, path), text: readFileSync(path, 'utf8') });
    }
  }
  return files;
}

/** `src/sim/blkback.ts` -> `sim`; `bin/xenblk-nbd.ts` -> `bin`. */
export function folderOf(path: string): string {
  const [top = '', second = ''] = path.split('/');
  return top === 'src' ? second : top;
}
