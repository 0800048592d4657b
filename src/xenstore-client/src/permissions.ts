/**
 * Permissions of a node: docs/misc/xenstore.txt, GET_PERMS. On the wire each is a letter and a
 * domain id: `n0`, `r5`, `w3`, `b2`. The first entry of a list is different from the rest: its
 * domain owns the node (and may always do everything), its access is that of all domains that
 * the list does not name.
 */
import { formatDomid, parseDomid } from './number.ts';

/** What a domain may do with a node, in XenStore's letters. */
export type PermissionAccess = 'none' | 'read' | 'write' | 'both';

/** What one domain may do with a node. */
export interface Permission {
  /** The domain, 0 to 65535. */
  readonly domid: number;
  /** What it may do. */
  readonly access: PermissionAccess;
}

const letterOfAccess = { none: 'n', read: 'r', write: 'w', both: 'b' } as const;
const accessOfLetter: ReadonlyMap<string, PermissionAccess> = new Map([
  ['n', 'none'],
  ['r', 'read'],
  ['w', 'write'],
  ['b', 'both'],
]);

/**
 * The wire form of a permission, for example `r5`.
 * @throws XenStoreError `EINVAL` if the domain id is not an integer from 0 to 65535.
 */
export function formatPermission(permission: Permission): string {
  return `${letterOfAccess[permission.access]}${formatDomid(permission.domid)}`;
}

/** Reads the wire form of a permission; undefined if it is not one. */
export function parsePermission(text: string): Permission | undefined {
  const access = accessOfLetter.get(text.slice(0, 1));
  const domid = parseDomid(text.slice(1));
  return access === undefined || domid === undefined ? undefined : { domid, access };
}
