/**
 * Nodes of the simulated XenStore, and what can be said of them without changing anything: paths,
 * permissions, and which changes concern whom. Nodes are immutable.
 */

import type { Permission } from 'xenstore-client/wire';

/** The domain that may do everything. */
export const PRIVILEGED_DOMID = 0;

/** One node. */
export interface StoreNode {
  readonly value: Uint8Array;
  readonly permissions: readonly Permission[];
  readonly children: ReadonlyMap<string, StoreNode>;
  /** Changes with the value, the permissions and the set of children. Never used twice. */
  readonly generation: number;
}

/** One changed path, for firing watches. */
export interface StoreChange {
  readonly path: string;
  /**
   * Only watches on exactly this path fire: a node that went with its parent. Otherwise watches on
   * all its ancestors fire too.
   */
  readonly isExact: boolean;
  /** The change may be told to a domain that one of these lets read. */
  readonly permissions: readonly (readonly Permission[])[];
}

/** What somebody may want to do with a node. */
export type Access = 'read' | 'write';

/** Whether a list of permissions gives `domid` an access. The first entry names the owner. */
export function isPermitted(
  permissions: readonly Permission[],
  domid: number,
  wanted: Access,
): boolean {
  const owner = permissions[0];
  if (domid === PRIVILEGED_DOMID || owner?.domid === domid) return true;
  const own = permissions.slice(1).find((permission) => permission.domid === domid);
  const access = (own ?? owner)?.access ?? 'none';
  return access === 'both' || access === wanted;
}

/** The names on the way to a node; none for the root. */
export function namesOf(path: string): string[] {
  return path === '/' ? [] : path.slice(1).split('/');
}

/** The path of a node's parent; that of the root is the root. */
export function parentOf(path: string): string {
  const end = path.lastIndexOf('/');
  return end <= 0 ? '/' : path.slice(0, end);
}

/** The node at a path, or undefined. */
export function find(root: StoreNode, path: string): StoreNode | undefined {
  let node: StoreNode | undefined = root;
  for (const name of namesOf(path)) {
    node = node?.children.get(name);
  }
  return node;
}

/** How many nodes at and below this one a domain owns. */
export function countOwned(node: StoreNode, domid: number): number {
  let count = node.permissions[0]?.domid === domid ? 1 : 0;
  for (const child of node.children.values()) count += countOwned(child, domid);
  return count;
}

/** A removed node, told to all that watch above it; then each node below it, told exactly. */
export function removals(root: StoreNode, path: string): StoreChange[] {
  const changes: StoreChange[] = [];
  const visit = (node: StoreNode, at: string, above: readonly Permission[]): void => {
    const isExact = at !== path;
    for (const [name, child] of node.children) visit(child, `${at}/${name}`, node.permissions);
    changes.push({ path: at, isExact, permissions: [node.permissions, above] });
  };
  const node = find(root, path);
  const parent = find(root, parentOf(path));
  if (node !== undefined && parent !== undefined) visit(node, path, parent.permissions);
  return changes;
}

/** Permissions of a node and of its parent, before and after a change. */
export function permissionsAround(
  roots: readonly StoreNode[],
  path: string,
): readonly (readonly Permission[])[] {
  return roots.flatMap((root) =>
    [find(root, path), find(root, parentOf(path))].flatMap((node) =>
      node === undefined ? [] : [node.permissions],
    ),
  );
}
