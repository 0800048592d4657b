/**
 * XenStore paths: docs/misc/xenstore.txt and xenstored's own checks (valid_chars,
 * is_valid_nodename). Letters, digits and `-/_@`; no empty path, no doubled slash, no slash at the
 * end but in the root. All paths are ASCII, so lengths in characters are lengths in bytes.
 */
import { XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX } from './constants.ts';
import { XenStoreError } from './errors.ts';

/**
 * `absolute` starts with a slash. `relative` starts at the caller's own directory,
 * /local/domain/<domid>. `special` starts with `@` and names an event, not a node:
 * `@introduceDomain` and `@releaseDomain`.
 */
export type PathKind = 'absolute' | 'relative' | 'special';

/** Watched to learn that a domain was introduced to XenStore. */
export const INTRODUCE_DOMAIN_PATH = '@introduceDomain';
/** Watched to learn that a domain crashed, shut down or went away. */
export const RELEASE_DOMAIN_PATH = '@releaseDomain';

/** What a path looks like it wants to be; says nothing about whether it is valid. */
export function pathKindOf(path: string): PathKind {
  if (path.startsWith('/')) return 'absolute';
  return path.startsWith('@') ? 'special' : 'relative';
}

/** What is wrong with a path, as the rest of a sentence; undefined if it is valid. */
export function describePathFault(path: string): string | undefined {
  const kind = pathKindOf(path);
  const lengthMax = kind === 'absolute' ? XENSTORE_ABS_PATH_MAX : XENSTORE_REL_PATH_MAX;
  if (path.length === 0) return 'is empty';
  if (path.length > lengthMax) {
    return `is ${path.length} characters long, and the limit for ${kind} paths is ${lengthMax}`;
  }
  if (!/^[A-Za-z0-9\-/_@]+$/.test(path)) {
    return 'holds a character other than letters, digits and - / _ @';
  }
  if (path.includes('//')) return 'holds a doubled slash';
  if (path !== '/' && path.endsWith('/')) return 'ends with a slash';
  if (path === '@') return 'names no event';
  return undefined;
}

/** Whether a path is valid: absolute, relative or special. */
export function isValidPath(path: string): boolean {
  return describePathFault(path) === undefined;
}

/**
 * Checks a path that names a node.
 * @throws XenStoreError `EINVAL` if it is not valid, or special.
 */
export function checkNodePath(path: string): void {
  checkAnyPath(path);
  if (pathKindOf(path) === 'special') {
    throw new XenStoreError('EINVAL', `${quotePath(path)} names an event, not a node.`, { path });
  }
}

/**
 * Checks a path that names a node or, for watches and permissions, an event.
 * @throws XenStoreError `EINVAL` if it is not valid.
 */
export function checkAnyPath(path: string): void {
  const fault = describePathFault(path);
  if (fault !== undefined) {
    throw new XenStoreError('EINVAL', `The XenStore path ${quotePath(path)} ${fault}.`, { path });
  }
}

/** A path for a message: quoted, control characters escaped, cut when it is very long. */
export function quotePath(path: string): string {
  const shown = path.length > 200 ? `${path.slice(0, 200)}...` : path;
  return JSON.stringify(shown);
}

/**
 * The absolute form of a path: relative ones start at `base`, others stay as they are. What a
 * server does with `base` = the caller's directory, for example `/local/domain/7`.
 */
export function resolvePath(path: string, base: string): string {
  if (pathKindOf(path) !== 'relative') return path;
  return base === '/' ? `/${path}` : `${base}/${path}`;
}
