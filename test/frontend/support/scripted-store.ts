/**
 * A XenStore in memory, for tests of the front end: it speaks the wire protocol to any number of
 * clients and lets the test write behind their backs. Watches fire after a microtask, so that they
 * are late as real ones are. Reads below another domain's home give EACCES for what is missing, as
 * for a real guest.
 */

import type { Transport, TransportHandlers } from 'xenstore-client';
import {
  encodeReply,
  encodeWatchEvent,
  PacketFramer,
  parseRequest,
  type XenStoreError,
  type XsErrorName,
  type XsReply,
  type XsRequest,
  XsType,
} from 'xenstore-client/wire';

interface OpenTransaction {
  readonly nodes: Map<string, string>;
  readonly generation: number;
  readonly changed: Set<string>;
}

/** Calls back for each change, after it. */
type ChangeListener = (path: string) => void;

export class ScriptedStore {
  readonly nodes: Map<string, string> = new Map();
  /** Every write of a client: path, value (undefined for a removal), in the order of commits. */
  readonly writes: [path: string, value: string | undefined][] = [];
  /** Errors to give for the next requests of a type. */
  readonly failures: { type: number; name: XsErrorName }[] = [];
  /** The guest's home: what its relative paths mean. */
  home = '/local/domain/1';
  generation = 1;
  /** Takes requests and never answers. */
  isSilent = false;
  requestCount = 0;
  /** Called before each request is performed, with how many there were. */
  onRequest: ((count: number) => void) | undefined;
  readonly #clients = new Set<ScriptedClient>();
  readonly #listeners = new Set<ChangeListener>();

  connect(): Transport {
    const client = new ScriptedClient(this);
    this.#clients.add(client);
    return client;
  }

  /** Ends all connections from the server's side. */
  disconnectAll(): void {
    for (const client of this.#clients) {
      client.end(new Error('xenstored went away'));
    }
    this.#clients.clear();
  }

  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get(path: string): string | undefined {
    return this.nodes.get(this.absolute(path));
  }

  set(path: string, value: string): void {
    this.setAll({ [path]: value });
  }

  /** Several writes at once, as in a transaction. */
  setAll(values: Record<string, string>): void {
    const paths = Object.entries(values).map(([path, value]) => {
      this.nodes.set(this.absolute(path), value);
      return this.absolute(path);
    });
    this.changed(paths);
  }

  remove(...paths: string[]): void {
    const removed = paths.flatMap((path) => removeTree(this.nodes, this.absolute(path)));
    this.changed(removed);
  }

  /** Everything below a directory, by relative path. */
  below(path: string): Record<string, string> {
    const prefix = `${this.absolute(path)}/`;
    return Object.fromEntries(
      [...this.nodes]
        .filter(([node]) => node.startsWith(prefix))
        .map(([node, value]) => [node.slice(prefix.length), value]),
    );
  }

  /** Fires every watch, as after a restore. */
  fireAll(): void {
    for (const client of this.#clients) {
      client.fireAll();
    }
  }

  absolute(path: string): string {
    return path.startsWith('/') ? path : `${this.home}/${path}`;
  }

  changed(paths: readonly string[]): void {
    if (paths.length === 0) {
      return;
    }
    this.generation++;
    for (const path of paths) {
      for (const client of this.#clients) {
        client.fire(path);
      }
      for (const listener of this.#listeners) {
        listener(path);
      }
    }
  }
}

class ScriptedClient implements Transport {
  readonly #store: ScriptedStore;
  readonly #framer = new PacketFramer();
  readonly #watches = new Map<string, string>();
  readonly #transactions = new Map<number, OpenTransaction>();
  #lastTransaction = 0;
  #handlers: TransportHandlers | undefined;
  #hasEnded = false;

  constructor(store: ScriptedStore) {
    this.#store = store;
  }

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  close(): void {
    this.end(undefined);
  }

  end(error: Error | undefined): void {
    if (!this.#hasEnded) {
      this.#hasEnded = true;
      queueMicrotask(() => this.#handlers?.onClose(error));
    }
  }

  send(bytes: Uint8Array): void {
    this.#framer.push(bytes.slice());
    for (let packet = this.#framer.next(); packet !== undefined; packet = this.#framer.next()) {
      const { reqId, txId } = packet;
      const request = parseRequest(packet);
      this.#deliver(() => encodeReply(this.#answer(request, txId), reqId, txId));
      if (request.type === XsType.WATCH) {
        this.#deliver(() => encodeWatchEvent({ path: request.path, token: request.token }));
      }
    }
  }

  fire(path: string): void {
    for (const [token, watched] of this.#watches) {
      const absolute = this.#store.absolute(watched);
      // A removed parent fires the watches below it as well.
      if (isAtOrBelow(path, absolute) || isAtOrBelow(absolute, path)) {
        this.#deliver(() => encodeWatchEvent({ path: watched, token }));
      }
    }
  }

  fireAll(): void {
    for (const [token, path] of this.#watches) {
      this.#deliver(() => encodeWatchEvent({ path, token }));
    }
  }

  #deliver(make: () => Uint8Array): void {
    queueMicrotask(() => {
      if (!this.#hasEnded && !this.#store.isSilent) {
        this.#handlers?.onData(make());
      }
    });
  }

  #answer(request: XsRequest, txId: number): XsReply {
    this.#store.requestCount++;
    this.#store.onRequest?.(this.#store.requestCount);
    const planned = this.#store.failures.findIndex(({ type }) => type === request.type);
    if (planned >= 0) {
      const [failure] = this.#store.failures.splice(planned, 1);
      return { type: XsType.ERROR, name: failure?.name ?? 'EIO' };
    }
    try {
      return this.#perform(request, txId);
    } catch (error) {
      const name = (error as Partial<XenStoreError>).code;
      if (name === undefined) {
        throw error;
      }
      return { type: XsType.ERROR, name: name as XsErrorName };
    }
  }

  #perform(request: XsRequest, txId: number): XsReply {
    const store = this.#store;
    const transaction = txId === 0 ? undefined : this.#transactions.get(txId);
    const nodes = transaction?.nodes ?? store.nodes;
    if (request.type === XsType.READ) {
      const value = nodes.get(store.absolute(request.path));
      return value === undefined
        ? { type: XsType.ERROR, name: this.#missing(request.path) }
        : { type: XsType.READ, value: new TextEncoder().encode(value) };
    }
    if (request.type === XsType.DIRECTORY) {
      const names = childrenOf(nodes, store.absolute(request.path));
      return names === undefined
        ? { type: XsType.ERROR, name: this.#missing(request.path) }
        : { type: XsType.DIRECTORY, names };
    }
    if (request.type === XsType.WRITE) {
      const path = store.absolute(request.path);
      this.#change(transaction, path, new TextDecoder().decode(request.value));
      return { type: XsType.WRITE };
    }
    if (request.type === XsType.RM) {
      this.#change(transaction, store.absolute(request.path), undefined);
      return { type: XsType.RM };
    }
    if (request.type === XsType.WATCH) {
      this.#watches.set(request.token, request.path);
      return { type: XsType.WATCH };
    }
    if (request.type === XsType.UNWATCH) {
      this.#watches.delete(request.token);
      return { type: XsType.UNWATCH };
    }
    if (request.type === XsType.TRANSACTION_START) {
      return this.#startTransaction();
    }
    return request.type === XsType.TRANSACTION_END
      ? this.#endTransaction(txId, request.commit)
      : { type: XsType.ERROR, name: 'ENOSYS' };
  }

  #startTransaction(): XsReply {
    const transactionId = ++this.#lastTransaction;
    this.#transactions.set(transactionId, {
      nodes: new Map(this.#store.nodes),
      generation: this.#store.generation,
      changed: new Set(),
    });
    return { type: XsType.TRANSACTION_START, transactionId };
  }

  #missing(path: string): XsErrorName {
    return isAtOrBelow(this.#store.absolute(path), this.#store.home) ? 'ENOENT' : 'EACCES';
  }

  #change(transaction: OpenTransaction | undefined, path: string, value: string | undefined): void {
    const nodes = transaction?.nodes ?? this.#store.nodes;
    const paths = value === undefined ? removeTree(nodes, path) : [path];
    if (value !== undefined) {
      nodes.set(path, value);
    }
    if (transaction === undefined) {
      this.#store.writes.push([path, value]);
      this.#store.changed(paths);
    } else {
      for (const changed of paths) {
        transaction.changed.delete(changed);
        transaction.changed.add(changed);
      }
    }
  }

  #endTransaction(txId: number, isCommit: boolean): XsReply {
    const store = this.#store;
    const transaction = this.#transactions.get(txId);
    this.#transactions.delete(txId);
    if (transaction === undefined) {
      return { type: XsType.ERROR, name: 'ENOENT' };
    }
    if (isCommit && transaction.changed.size > 0) {
      if (transaction.generation !== store.generation) {
        return { type: XsType.ERROR, name: 'EAGAIN' };
      }
      for (const path of transaction.changed) {
        const value = transaction.nodes.get(path);
        if (value === undefined) {
          store.nodes.delete(path);
        } else {
          store.nodes.set(path, value);
        }
        store.writes.push([path, value]);
      }
      store.changed([...transaction.changed]);
    }
    return { type: XsType.TRANSACTION_END };
  }
}

function isAtOrBelow(path: string, parent: string): boolean {
  return path === parent || path.startsWith(`${parent}/`);
}

/** Removes a node and all below; returns what was removed. */
function removeTree(nodes: Map<string, string>, path: string): string[] {
  const removed = [...nodes.keys()].filter((node) => isAtOrBelow(node, path));
  for (const node of removed) {
    nodes.delete(node);
  }
  return removed;
}

function childrenOf(nodes: ReadonlyMap<string, string>, path: string): string[] | undefined {
  const prefix = `${path}/`;
  const names = new Set<string>();
  for (const node of nodes.keys()) {
    if (node.startsWith(prefix)) {
      names.add(node.slice(prefix.length).split('/')[0] ?? '');
    }
  }
  return names.size === 0 && !nodes.has(path) ? undefined : [...names];
}
