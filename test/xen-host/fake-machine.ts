// A folder that looks like the files of a machine with, or without, Xen.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { XenPaths } from '../../src/xen/index.ts';

export interface FakeMachine extends XenPaths {
  readonly root: string;
}

/** Files by path, relative to the machine's root; gone when the test is over. */
export function fakeMachine(
  test: { teardown(action: () => void): unknown },
  files: Readonly<Record<string, string>>,
): FakeMachine {
  const root = mkdtempSync(join(tmpdir(), 'xen-host-'));
  test.teardown(() => rmSync(root, { recursive: true }));
  for (const [path, content] of Object.entries(files)) {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
  const at = (path: string): string => join(root, path);
  return { root, devXen: at('dev/xen'), sys: at('sys'), proc: at('proc') };
}
