/**
 * A XenStore server that speaks the wire protocol: packets in, packets out, in the manner of
 * tools/xenstored of Xen. Whoever connects gets a byte stream and cannot tell it from the real one.
 *
 * One thing happens at a time, in its own task: a message of one connection is processed, or a
 * packet is delivered to one connection. Tasks go to a scheduler, so that a test can choose the
 * order between connections; within a connection the order is kept whatever it chooses.
 */

import {
  encodeReply,
  encodeWatchEvent,
  INTRODUCE_DOMAIN_PATH,
  isXsErrorName,
  type Packet,
  PacketFramer,
  parseRequest,
  RELEASE_DOMAIN_PATH,
  resolvePath,
  sliceDirectory,
  XenStoreError,
  XenStoreProtocolError,
  type XsErrorName,
  type XsReply,
  type XsRequest,
  XsType,
} from 'xenstore-client/wire';
import { isPermitted, PRIVILEGED_DOMID, type StoreChange } from './store-node.ts';
import { type StoreQuota, type StoreTransaction, StoreTree } from './store-tree.ts';

/** Runs a task later. Tests bring one that decides when, and in which order. */
export type Schedule = (task: () => void) => void;

/** How a server is set up. */
export interface XenstoredOptions {
  /** Default: setImmediate. */
  readonly schedule?: Schedule | undefined;
  readonly quota?: StoreQuota | undefined;
}

/** What a connection tells its client. */
export interface XenstoredClient {
  /** Bytes of whole packets. */
  onData(bytes: Uint8Array): void;
  /** The server ended the connection: the client broke the protocol, or its domain is gone. */
  onClose(reason: string): void;
}

/** Watches of one unprivileged connection. */
const MAX_WATCHES = 128;
/** Transactions that one unprivileged connection may have open. */
const MAX_TRANSACTIONS = 10;

interface Watch {
  readonly path: string;
  readonly token: string;
  /** Characters to leave out of the path of an event: the home of a relative watch. */
  readonly prefixLength: number;
}

/** The server. */
export class Xenstored {
  readonly tree: StoreTree;
  readonly schedule: Schedule;
  readonly #connections = new Set<XenstoredConnection>();
  readonly #introduced = new Set<number>([PRIVILEGED_DOMID]);
  #lastTransactionId = 0;

  constructor(options: XenstoredOptions = {}) {
    this.tree = new StoreTree(options.quota);
    this.schedule = options.schedule ?? ((task) => setImmediate(task));
  }

  connect(domid: number, client: XenstoredClient): XenstoredConnection {
    const connection = new XenstoredConnection(this, domid, client);
    this.#connections.add(connection);
    return connection;
  }

  /** A domain was made: it may connect, and who watches `@introduceDomain` is told. */
  introduce(domid: number): void {
    this.#introduced.add(domid);
    this.fire([eventChange(INTRODUCE_DOMAIN_PATH)]);
  }

  /** A domain is gone: its connections end, and who watches `@releaseDomain` is told. */
  release(domid: number): void {
    this.#introduced.delete(domid);
    for (const connection of this.#connections) {
      if (connection.domid === domid) connection.end('the domain was released');
    }
    this.fire([eventChange(RELEASE_DOMAIN_PATH)]);
  }

  isIntroduced(domid: number): boolean {
    return this.#introduced.has(domid);
  }

  /** Sends the events of changes to all watches that may know of them. */
  fire(changes: readonly StoreChange[]): void {
    for (const change of changes) {
      for (const connection of this.#connections) connection.tell(change);
    }
  }

  /** An id that no transaction of any connection has had: one that is too late hits no other. */
  nextTransactionId(): number {
    this.#lastTransactionId = (this.#lastTransactionId % 0xffff_ffff) + 1;
    return this.#lastTransactionId;
  }

  forget(connection: XenstoredConnection): void {
    this.#connections.delete(connection);
  }

  /** Connections that are open, for tests. */
  get connectionCount(): number {
    return this.#connections.size;
  }
}

function eventChange(path: string): StoreChange {
  // Domain events are for whoever watches them.
  return { path, isExact: true, permissions: [[{ domid: 0, access: 'read' }]] };
}

/** One connection: a domain, its stream, its watches and its transactions. */
export class XenstoredConnection {
  readonly domid: number;
  readonly #server: Xenstored;
  readonly #client: XenstoredClient;
  readonly #home: string;
  readonly #framer = new PacketFramer();
  readonly #requests: Packet[] = [];
  readonly #output: Uint8Array[] = [];
  readonly #transactions = new Map<number, StoreTransaction>();
  #watches: Watch[] = [];
  #isClosed = false;

  constructor(server: Xenstored, domid: number, client: XenstoredClient) {
    this.#server = server;
    this.domid = domid;
    this.#client = client;
    this.#home = `/local/domain/${domid}`;
  }

  /** Takes bytes of the client, cut anywhere. */
  push(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    this.#framer.push(bytes.slice());
    try {
      for (let packet = this.#framer.next(); packet !== undefined; packet = this.#framer.next()) {
        this.#requests.push(packet);
        this.#server.schedule(() => this.#processNext());
      }
    } catch (error) {
      if (!(error instanceof XenStoreProtocolError)) throw error;
      this.end(error.message);
    }
  }

  /** The client goes away, and its watches and transactions with it. Nothing is delivered more. */
  close(): void {
    this.#isClosed = true;
    this.#watches = [];
    this.#transactions.clear();
    this.#server.forget(this);
  }

  /** The server ends the connection. */
  end(reason: string): void {
    if (this.#isClosed) return;
    this.close();
    this.#server.schedule(() => this.#client.onClose(reason));
  }

  /** Queues the events of one change for the watches that cover it. */
  tell(change: StoreChange): void {
    if (this.#watches.length === 0) return;
    if (!change.permissions.some((list) => isPermitted(list, this.domid, 'read'))) return;
    for (const watch of this.#watches) {
      const covers = change.isExact ? watch.path === change.path : isBelow(change.path, watch.path);
      if (covers) this.#sendEvent(watch, change.path);
    }
  }

  #processNext(): void {
    const packet = this.#requests.shift();
    if (packet === undefined || this.#isClosed) return;
    const { reqId, txId } = packet;
    try {
      const request = parseRequest(packet);
      const transaction = this.#transactionOf(request, txId);
      const { reply, changes, event } = this.#serve(request, txId, transaction);
      // Watches fire before the answer, as in xenstored: who gets the answer has been told.
      if (changes !== undefined) this.#server.fire(changes);
      this.#send(encodeReply(reply, reqId, txId));
      if (event !== undefined) this.#sendEvent(event, event.path);
    } catch (error) {
      if (!(error instanceof XenStoreError)) throw error;
      const name: XsErrorName = isXsErrorName(error.code) ? error.code : 'EINVAL';
      this.#send(encodeReply({ type: XsType.ERROR, name }, reqId, txId));
    }
  }

  #serve(
    request: XsRequest,
    txId: number,
    transaction: StoreTransaction | undefined,
  ): { reply: XsReply; changes?: StoreChange[]; event?: Watch } {
    const { tree } = this.#server;
    const { domid } = this;
    const { type } = request;
    switch (type) {
      case XsType.READ:
        return {
          reply: { type, value: tree.read(domid, this.#resolve(request.path), transaction) },
        };
      case XsType.DIRECTORY: {
        const { names } = tree.directory(domid, this.#resolve(request.path), transaction);
        return { reply: { type, names } };
      }
      case XsType.DIRECTORY_PART: {
        const path = this.#resolve(request.path);
        const { names, generation } = tree.directory(domid, path, transaction);
        return { reply: sliceDirectory(names, String(generation), request.offsetBytes) };
      }
      case XsType.GET_PERMS: {
        const path = this.#resolveNode(request.path);
        return { reply: { type, permissions: tree.getPermissions(domid, path, transaction) } };
      }
      case XsType.WRITE: {
        const path = this.#resolve(request.path);
        return { reply: { type }, changes: tree.write(domid, path, request.value, transaction) };
      }
      case XsType.MKDIR:
        return {
          reply: { type },
          changes: tree.mkdir(domid, this.#resolve(request.path), transaction),
        };
      case XsType.RM:
        return {
          reply: { type },
          changes: tree.rm(domid, this.#resolve(request.path), transaction),
        };
      case XsType.SET_PERMS: {
        const path = this.#resolveNode(request.path);
        const changes = tree.setPermissions(domid, path, request.permissions, transaction);
        return { reply: { type }, changes };
      }
      case XsType.WATCH:
        return { reply: { type }, event: this.#addWatch(request.path, request.token) };
      case XsType.UNWATCH:
        this.#removeWatch(request.path, request.token);
        return { reply: { type } };
      case XsType.RESET_WATCHES:
        this.#watches = [];
        this.#transactions.clear();
        return { reply: { type } };
      case XsType.TRANSACTION_START:
        return { reply: { type, transactionId: this.#startTransaction(txId) } };
      case XsType.TRANSACTION_END: {
        if (transaction === undefined) throw refuse('ENOENT', 'There is no such transaction.');
        this.#transactions.delete(txId);
        return { reply: { type }, changes: request.commit ? tree.commit(transaction) : [] };
      }
      case XsType.GET_DOMAIN_PATH:
        return { reply: { type, path: `/local/domain/${request.domid}` } };
      case XsType.CONTROL:
      case XsType.INTRODUCE:
      case XsType.RELEASE:
      case XsType.IS_DOMAIN_INTRODUCED:
      case XsType.RESUME:
      case XsType.SET_TARGET:
      case XsType.GET_FEATURE:
      case XsType.SET_FEATURE:
      case XsType.GET_QUOTA:
      case XsType.SET_QUOTA:
        return this.#servePrivileged(request);
    }
  }

  #servePrivileged(request: XsRequest): { reply: XsReply } {
    if (this.domid !== PRIVILEGED_DOMID) {
      throw refuse('EACCES', 'This request is for privileged domains.');
    }
    const { type } = request;
    if (type === XsType.IS_DOMAIN_INTRODUCED) {
      return { reply: { type, introduced: this.#server.isIntroduced(request.domid) } };
    }
    if (type === XsType.INTRODUCE) {
      this.#server.introduce(request.domid);
      return { reply: { type } };
    }
    if (type === XsType.RELEASE) {
      this.#server.release(request.domid);
      return { reply: { type } };
    }
    throw refuse('ENOSYS', 'The simulated xenstored does not have this request.');
  }

  #resolve(path: string): string {
    return resolvePath(path, this.#home);
  }

  /** Events such as `@releaseDomain` have permissions in a real xenstored; here they have none. */
  #resolveNode(path: string): string {
    if (path.startsWith('@')) throw refuse('EACCES', `${path} has no permissions to look at.`);
    return this.#resolve(path);
  }

  // --- watches

  #addWatch(path: string, token: string): Watch {
    const resolved = this.#resolve(path);
    const isRelative = resolved !== path;
    if (this.#findWatch(resolved, token) >= 0) {
      throw refuse('EEXIST', `${path} is watched with this token already.`);
    }
    if (this.domid !== PRIVILEGED_DOMID && this.#watches.length >= MAX_WATCHES) {
      throw refuse('E2BIG', `There are ${MAX_WATCHES} watches already.`);
    }
    const prefixLength = isRelative ? this.#home.length + 1 : 0;
    const watch = { path: resolved, token, prefixLength };
    this.#watches.push(watch);
    return watch;
  }

  #removeWatch(path: string, token: string): void {
    const index = this.#findWatch(this.#resolve(path), token);
    if (index < 0) throw refuse('ENOENT', `${path} is not watched with this token.`);
    this.#watches.splice(index, 1);
  }

  #findWatch(path: string, token: string): number {
    return this.#watches.findIndex((watch) => watch.path === path && watch.token === token);
  }

  #sendEvent(watch: Watch, path: string): void {
    this.#send(encodeWatchEvent({ path: path.slice(watch.prefixLength), token: watch.token }));
  }

  // --- transactions

  #transactionOf(request: XsRequest, txId: number): StoreTransaction | undefined {
    // Watches are outside of transactions; xenstored ignores the id there.
    if (txId === 0 || request.type === XsType.WATCH || request.type === XsType.UNWATCH) {
      return undefined;
    }
    const transaction = this.#transactions.get(txId);
    if (transaction === undefined) throw refuse('ENOENT', 'There is no such transaction.');
    return transaction;
  }

  #startTransaction(txId: number): number {
    if (txId !== 0) throw refuse('EBUSY', 'Transactions do not nest.');
    if (this.domid !== PRIVILEGED_DOMID && this.#transactions.size >= MAX_TRANSACTIONS) {
      throw refuse('ENOSPC', `There are ${MAX_TRANSACTIONS} transactions already.`);
    }
    const id = this.#server.nextTransactionId();
    this.#transactions.set(id, this.#server.tree.begin());
    return id;
  }

  // --- output

  #send(packet: Uint8Array): void {
    this.#output.push(packet);
    this.#server.schedule(() => {
      const next = this.#output.shift();
      if (next !== undefined && !this.#isClosed) this.#client.onData(next);
    });
  }
}

/** Whether a path is another one or lies below it. */
function isBelow(path: string, ancestor: string): boolean {
  return ancestor === '/' || path === ancestor || path.startsWith(`${ancestor}/`);
}

function refuse(code: XsErrorName, message: string): XenStoreError {
  return new XenStoreError(code, message);
}
