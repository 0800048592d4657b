/** Who may connect to a Unix socket: the mode and the owner of its file. */

import { chmodSync, chownSync, readFileSync } from 'node:fs';
import { DaemonError, UsageError } from './errors.ts';

/** Permissions and owner of a Unix socket. */
export interface UnixAccess {
  /** Permission bits. */
  readonly mode: number;
  /** `USER`, `USER:GROUP` or `:GROUP`, by name or number; undefined for whoever we are. */
  readonly owner: string | undefined;
}

/** For us alone. */
export const PRIVATE_ACCESS: UnixAccess = { mode: 0o600, owner: undefined };

/** The octal digits of chmod(1). @throws UsageError */
export function parseUnixMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) {
    throw new UsageError(`--unix-mode ${text}: give three octal digits, such as 660`);
  }
  return Number.parseInt(text, 8);
}

/** The wish of chown(1). @throws UsageError */
export function parseUnixOwner(text: string): string {
  const [user = '', group, rest] = text.split(':');
  const isPart = (part: string): boolean => /^[^\s:]{1,256}$/.test(part);
  const isValid = rest === undefined && (group === undefined ? isPart(user) : isPart(group));
  if (!isValid || (user !== '' && !isPart(user))) {
    throw new UsageError(`--unix-owner ${text}: give USER, USER:GROUP or :GROUP`);
  }
  return text;
}

/**
 * Gives a socket's file to its owner, and only then to everyone that `mode` names.
 *
 * @throws DaemonError
 */
export function applyAccess(path: string, { mode, owner }: UnixAccess): void {
  try {
    if (owner !== undefined) {
      const { uid, gid } = resolveOwner(owner);
      // -1 leaves the one that was not asked for as it is (chown(2)).
      chownSync(path, uid, gid);
    }
    chmodSync(path, mode);
  } catch (error) {
    if (error instanceof DaemonError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const what = code === 'EPERM' ? 'only root may give a socket to somebody else' : message;
    throw new DaemonError(`cannot give the socket ${path} to ${owner ?? 'its users'}: ${what}`, {
      cause: error,
    });
  }
}

/** Numbers for an owner; files in the place of passwd(5) and group(5) are for tests. */
export function resolveOwner(
  owner: string,
  files: { readonly passwd: string; readonly group: string } = {
    passwd: '/etc/passwd',
    group: '/etc/group',
  },
): { readonly uid: number; readonly gid: number } {
  const [user = '', group = ''] = owner.split(':');
  return {
    uid: user === '' ? UNCHANGED : resolve(user, files.passwd, 'user'),
    gid: group === '' ? UNCHANGED : resolve(group, files.group, 'group'),
  };
}

const UNCHANGED = -1;

function resolve(name: string, file: string, what: string): number {
  if (/^[0-9]{1,10}$/.test(name)) return Number(name);
  let text = '';
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    // Without the file there are no names, and the error below says what to do.
  }
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name}:`));
  const id = line?.split(':')[2];
  if (id === undefined || !/^[0-9]{1,10}$/.test(id)) {
    throw new DaemonError(`--unix-owner: there is no ${what} ${name} in ${file}; give its number`);
  }
  return Number(id);
}
