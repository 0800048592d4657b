// Kernel modules with everything they depend on, and the modules.dep that modprobe reads. Debian's
// package comes without one, because its installation script runs depmod.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from './tools.ts';

export interface KernelModule {
  /** e.g. `kernel/fs/ext4/ext4.ko` */
  readonly path: string;
  readonly content: Uint8Array;
  /** Paths of the modules it depends on directly. */
  readonly dependencies: readonly string[];
}

/** `names` and their dependencies, from `folder` (lib/modules/RELEASE). */
export function collectModules(folder: string, names: readonly string[]): KernelModule[] {
  const pathByName = new Map<string, string>();
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.name.endsWith('.ko')) continue;
    const path = join(entry.parentPath, entry.name).slice(folder.length + 1);
    pathByName.set(moduleName(entry.name.slice(0, -3)), path);
  }

  const collected = new Map<string, KernelModule>();
  const collect = (name: string): string => {
    const path = pathByName.get(moduleName(name));
    if (path === undefined) throw new LabError(`the kernel package has no module ${name}`);
    if (!collected.has(path)) {
      const content = readFileSync(join(folder, path));
      const dependencies = dependenciesIn(content).map(collect);
      collected.set(path, { path, content, dependencies });
    }
    return path;
  };
  for (const name of names) collect(name);
  return [...collected.values()];
}

/** The text of modules.dep: each module with all it needs, nearest first. */
export function formatModulesDep(modules: readonly KernelModule[]): string {
  const byPath = new Map(modules.map((module) => [module.path, module]));
  const closure = (path: string): string[] => {
    const direct = byPath.get(path)?.dependencies ?? [];
    // What several of them need stands behind the last: modprobe begins at the end.
    const all = direct.flatMap((each) => [each, ...closure(each)]);
    return [...new Set(all.toReversed())].toReversed();
  };
  return modules.map(({ path }) => `${path}: ${closure(path).join(' ')}\n`).join('');
}

/** The kernel takes - and _ for the same. */
function moduleName(name: string): string {
  return name.replaceAll('-', '_');
}

/** The `depends=` field of the module's .modinfo section: NUL-terminated strings. */
function dependenciesIn(content: Buffer): string[] {
  const key = '\0depends=';
  const start = content.indexOf(key);
  if (start < 0) return [];
  const end = content.indexOf(0, start + key.length);
  const names = content.toString('latin1', start + key.length, end);
  return names.split(',').filter((name) => name !== '');
}
