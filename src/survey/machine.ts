/** The files of the machine that a survey looks at. Tests bring a machine of their own. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type DiskPaths, linuxDiskPaths } from '../xen/index.ts';

/** Where the machine's files are: those of Xen and disks, and the root of all others. */
export interface Machine extends DiskPaths {
  readonly root: string;
}

/** The machine that we run on. */
export const thisMachine: Machine = { ...linuxDiskPaths, root: '/' };

/** The text of a file without the space around it; undefined when it cannot be read. */
export function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** A process that has a file open. */
export interface FileUser {
  readonly pid: number;
  /** Its command, as `ps` shows it. */
  readonly command: string;
}

/** Who has a file open, as far as this user may see. */
export interface FileUsers {
  readonly users: readonly FileUser[];
  /** Whether every process could be looked at: root sees all, others their own. */
  readonly isComplete: boolean;
}

/** Finds the processes that have `file` open. */
export function usersOf(file: string, proc: string): FileUsers {
  const users: FileUser[] = [];
  let isComplete = true;
  for (const name of listFolder(proc) ?? []) {
    if (!/^[0-9]+$/.test(name)) continue;
    const descriptors = join(proc, name, 'fd');
    const numbers = listFolder(descriptors);
    // A process that ends meanwhile looks like one that may not be seen; it is one no more.
    if (numbers === undefined) isComplete = false;
    if (numbers?.some((number) => linkTarget(join(descriptors, number)) === file)) {
      const command = readIfThere(join(proc, name, 'comm')) ?? '?';
      users.push({ pid: Number(name), command });
    }
  }
  return { users, isComplete };
}

function listFolder(folder: string): string[] | undefined {
  try {
    return readdirSync(folder);
  } catch {
    return undefined;
  }
}

function linkTarget(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined;
  }
}
