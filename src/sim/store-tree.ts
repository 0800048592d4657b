/**
 * The tree behind a xenstored: nodes with a value, permissions and children. Pure data: no
 * connections, no packets, no watches. What an operation changed is returned, so that the caller
 * can fire watches.
 *
 * The rules are those of tools/xenstored of Xen (core.c, transaction.c): permission checks, the
 * error that hides what a domain may not see, owners and quotas of unprivileged domains,
 * transactions that fail with EAGAIN when a node they looked at was changed by somebody else.
 *
 * Nodes are immutable. A change makes new nodes along one path, so a transaction's snapshot is the
 * root at its start and costs nothing.
 */

import { type Permission, XenStoreError, type XsErrorName } from 'xenstore-client/wire';
import {
  type Access,
  countOwned,
  find,
  isPermitted,
  namesOf,
  PRIVILEGED_DOMID,
  parentOf,
  permissionsAround,
  removals,
  type StoreChange,
  type StoreNode,
} from './store-node.ts';

/** What an unprivileged domain may have; the defaults of xenstored. */
export interface StoreQuota {
  /** Nodes that the domain owns. */
  readonly nodes: number;
  /** Value plus permissions plus names of children of one node, roughly. */
  readonly nodeBytes: number;
  readonly permissionsPerNode: number;
}

/** What xenstored gives to a domain. */
export const DEFAULT_STORE_QUOTA: StoreQuota = {
  nodes: 1000,
  nodeBytes: 2048,
  permissionsPerNode: 5,
};

type Operation =
  | { kind: 'write'; domid: number; path: string; value: Uint8Array }
  | { kind: 'mkdir'; domid: number; path: string }
  | { kind: 'rm'; path: string }
  | { kind: 'permissions'; path: string; permissions: readonly Permission[] };

const ABSENT = -1;
const NO_VALUE = new Uint8Array(0);

/** A transaction: a snapshot, what was changed in it, and what it has looked at. */
export class StoreTransaction {
  root: StoreNode;
  /** Generation in the snapshot of each node that was read or changed; ABSENT for none. */
  readonly seen: Map<string, number> = new Map();
  readonly operations: Operation[] = [];
  readonly snapshot: StoreNode;

  constructor(snapshot: StoreNode) {
    this.snapshot = snapshot;
    this.root = snapshot;
  }
}

/** The store. Paths are absolute and valid; every method throws XenStoreError with its code. */
export class StoreTree {
  #root: StoreNode;
  #generation = 0;
  readonly #quota: StoreQuota;

  constructor(quota: StoreQuota = DEFAULT_STORE_QUOTA) {
    this.#quota = quota;
    this.#root = {
      value: NO_VALUE,
      permissions: [{ domid: PRIVILEGED_DOMID, access: 'none' }],
      children: new Map(),
      generation: this.#nextGeneration(),
    };
  }

  begin(): StoreTransaction {
    return new StoreTransaction(this.#root);
  }

  /**
   * Makes a transaction's changes all at once.
   *
   * @throws XenStoreError EAGAIN when a node that it looked at has changed since; nothing is done.
   */
  commit(transaction: StoreTransaction): StoreChange[] {
    for (const [path, generation] of transaction.seen) {
      if ((find(this.#root, path)?.generation ?? ABSENT) !== generation) {
        throw fault('EAGAIN', path, 'was changed by somebody else during the transaction');
      }
    }
    // Nothing that the operations depend on has changed, so they do the same again.
    const changes = new Map<string, StoreChange>();
    for (const operation of transaction.operations) {
      for (const change of this.#apply(operation, undefined)) {
        changes.set(`${change.isExact}${change.path}`, change);
      }
    }
    return [...changes.values()];
  }

  read(domid: number, path: string, transaction?: StoreTransaction): Uint8Array {
    return this.#get(domid, path, 'read', transaction).value;
  }

  /** Names of the children, in order of creation, and the node's generation. */
  directory(
    domid: number,
    path: string,
    transaction?: StoreTransaction,
  ): { names: string[]; generation: number } {
    const node = this.#get(domid, path, 'read', transaction);
    return { names: [...node.children.keys()], generation: node.generation };
  }

  getPermissions(
    domid: number,
    path: string,
    transaction?: StoreTransaction,
  ): readonly Permission[] {
    return this.#get(domid, path, 'read', transaction).permissions;
  }

  write(
    domid: number,
    path: string,
    value: Uint8Array,
    transaction?: StoreTransaction,
  ): StoreChange[] {
    const node = this.#getOrAbsent(domid, path, 'write', transaction);
    if (node === undefined) this.#checkCreation(domid, path, transaction);
    this.#checkSize(domid, path, value.length, node?.children);
    return this.#do({ kind: 'write', domid, path, value: value.slice() }, transaction);
  }

  /** Makes an empty node. One that exists is left alone, without a change. */
  mkdir(domid: number, path: string, transaction?: StoreTransaction): StoreChange[] {
    if (this.#getOrAbsent(domid, path, 'write', transaction) !== undefined) return [];
    this.#checkCreation(domid, path, transaction);
    return this.#do({ kind: 'mkdir', domid, path }, transaction);
  }

  /** Removes a node with all below it. One that does not exist is fine if its parent does. */
  rm(domid: number, path: string, transaction?: StoreTransaction): StoreChange[] {
    const node = this.#getOrAbsent(domid, path, 'write', transaction);
    if (node === undefined) {
      if (this.#look(parentOf(path), transaction) === undefined) throw absent(path);
      return [];
    }
    if (path === '/') throw fault('EINVAL', path, 'is the root and cannot be removed');
    this.#look(parentOf(path), transaction);
    return this.#do({ kind: 'rm', path }, transaction);
  }

  setPermissions(
    domid: number,
    path: string,
    permissions: readonly Permission[],
    transaction?: StoreTransaction,
  ): StoreChange[] {
    const limit = this.#quota.permissionsPerNode;
    if (domid !== PRIVILEGED_DOMID && permissions.length > limit) {
      throw fault('ENOSPC', path, `may have ${limit} permissions at most`);
    }
    const node = this.#get(domid, path, 'write', transaction);
    const owner = node.permissions[0]?.domid;
    if (domid !== PRIVILEGED_DOMID) {
      if (owner !== domid) throw fault('EACCES', path, `is not owned by domain ${domid}`);
      if (permissions[0]?.domid !== owner) throw fault('EPERM', path, 'must keep its owner');
    }
    return this.#do({ kind: 'permissions', path, permissions: [...permissions] }, transaction);
  }

  /** The whole tree as text values by path, for tests and dumps. */
  dump(path = '/'): Map<string, string> {
    const values = new Map<string, string>();
    const decoder = new TextDecoder('latin1');
    const visit = (node: StoreNode, at: string): void => {
      values.set(at === '' ? '/' : at, decoder.decode(node.value));
      for (const [name, child] of node.children) visit(child, `${at}/${name}`);
    };
    const start = find(this.#root, path);
    if (start !== undefined) visit(start, path === '/' ? '' : path);
    return values;
  }

  // --- looking

  #rootOf(transaction: StoreTransaction | undefined): StoreNode {
    return transaction?.root ?? this.#root;
  }

  /** Finds a node, and notes in the transaction that it mattered, also when it is not there. */
  #look(path: string, transaction: StoreTransaction | undefined): StoreNode | undefined {
    if (transaction !== undefined && !transaction.seen.has(path)) {
      transaction.seen.set(path, find(transaction.snapshot, path)?.generation ?? ABSENT);
    }
    return find(this.#rootOf(transaction), path);
  }

  /** The node, or undefined when it does not exist and the domain may know that. */
  #getOrAbsent(
    domid: number,
    path: string,
    access: Access,
    transaction: StoreTransaction | undefined,
  ): StoreNode | undefined {
    const node = this.#look(path, transaction);
    if (node !== undefined) {
      if (isPermitted(node.permissions, domid, access)) return node;
      throw fault('EACCES', path, `may not be ${access === 'read' ? 'read' : 'written'}`);
    }
    // Who may not use the nearest ancestor must not learn that something is missing below it.
    const root = this.#rootOf(transaction);
    let ancestor = parentOf(path);
    while (find(root, ancestor) === undefined) ancestor = parentOf(ancestor);
    const permissions = find(root, ancestor)?.permissions ?? [];
    if (!isPermitted(permissions, domid, access)) {
      throw fault('EACCES', path, `is hidden by ${ancestor}`);
    }
    return undefined;
  }

  #get(
    domid: number,
    path: string,
    access: Access,
    transaction: StoreTransaction | undefined,
  ): StoreNode {
    const node = this.#getOrAbsent(domid, path, access, transaction);
    if (node === undefined) throw absent(path);
    return node;
  }

  // --- quotas

  #checkCreation(domid: number, path: string, transaction: StoreTransaction | undefined): void {
    // The nearest existing ancestor gets a child: that is a change of it.
    let missing = 1;
    let ancestor = parentOf(path);
    while (this.#look(ancestor, transaction) === undefined) {
      missing += 1;
      ancestor = parentOf(ancestor);
    }
    if (domid === PRIVILEGED_DOMID) return;
    if (countOwned(this.#rootOf(transaction), domid) + missing > this.#quota.nodes) {
      throw fault('ENOSPC', path, `would be one node too many: the quota is ${this.#quota.nodes}`);
    }
  }

  #checkSize(
    domid: number,
    path: string,
    valueBytes: number,
    children: ReadonlyMap<string, StoreNode> | undefined,
  ): void {
    if (domid === PRIVILEGED_DOMID) return;
    let sizeBytes = valueBytes;
    for (const name of children?.keys() ?? []) sizeBytes += name.length + 1;
    if (sizeBytes > this.#quota.nodeBytes) {
      throw fault('ENOSPC', path, `would be larger than ${this.#quota.nodeBytes} bytes`);
    }
  }

  // --- changing

  #nextGeneration(): number {
    this.#generation += 1;
    return this.#generation;
  }

  /** Does an operation in the store, or in the transaction, which then does it again at commit. */
  #do(operation: Operation, transaction: StoreTransaction | undefined): StoreChange[] {
    transaction?.operations.push(operation);
    const changes = this.#apply(operation, transaction);
    return transaction === undefined ? changes : [];
  }

  #apply(operation: Operation, transaction: StoreTransaction | undefined): StoreChange[] {
    const before = this.#rootOf(transaction);
    const names = namesOf(operation.path);
    let after: StoreNode;
    switch (operation.kind) {
      case 'write':
      case 'mkdir':
        after = this.#withNode(before, names, operation.domid, (node) => ({
          ...node,
          value: operation.kind === 'write' ? operation.value : node.value,
        }));
        break;
      case 'permissions':
        after = this.#withNode(before, names, PRIVILEGED_DOMID, (node) => ({
          ...node,
          permissions: operation.permissions,
        }));
        break;
      case 'rm':
        after = this.#withoutNode(before, names);
        break;
    }
    if (transaction === undefined) this.#root = after;
    else transaction.root = after;
    return operation.kind === 'rm'
      ? removals(before, operation.path)
      : [
          {
            path: operation.path,
            isExact: false,
            permissions: permissionsAround([before, after], operation.path),
          },
        ];
  }

  /** Replaces the node at the end of `names`, making what is missing on the way. */
  #withNode(
    node: StoreNode,
    names: readonly string[],
    domid: number,
    change: (node: StoreNode) => StoreNode,
  ): StoreNode {
    const name = names[0];
    if (name === undefined) return { ...change(node), generation: this.#nextGeneration() };
    const existing = node.children.get(name);
    const child = existing ?? this.#inherit(node, domid);
    const children = new Map(node.children);
    children.set(name, this.#withNode(child, names.slice(1), domid, change));
    // A new child is a change of its parent; a changed child is not.
    const generation = existing === undefined ? this.#nextGeneration() : node.generation;
    return { ...node, children, generation };
  }

  #withoutNode(node: StoreNode, names: readonly string[]): StoreNode {
    const name = names[0];
    const child = name === undefined ? undefined : node.children.get(name);
    if (name === undefined || child === undefined) return node;
    const children = new Map(node.children);
    if (names.length > 1) {
      children.set(name, this.#withoutNode(child, names.slice(1)));
      return { ...node, children };
    }
    children.delete(name);
    return { ...node, children, generation: this.#nextGeneration() };
  }

  /** A new node has its parent's permissions, but unprivileged domains own what they create. */
  #inherit(parent: StoreNode, domid: number): StoreNode {
    const [owner, ...others] = parent.permissions;
    const ownerDomid = domid === PRIVILEGED_DOMID ? (owner?.domid ?? 0) : domid;
    return {
      value: NO_VALUE,
      permissions: [{ domid: ownerDomid, access: owner?.access ?? 'none' }, ...others],
      children: new Map(),
      generation: this.#nextGeneration(),
    };
  }
}

function absent(path: string): XenStoreError {
  return fault('ENOENT', path, 'does not exist');
}

function fault(code: XsErrorName, path: string, what: string): XenStoreError {
  return new XenStoreError(code, `The node ${path} ${what}.`, { path });
}
