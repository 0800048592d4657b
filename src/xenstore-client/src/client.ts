/**
 * The client: operations on nodes, watches, transactions and questions about domains, over one
 * connection. It opens no files and sets no timers but those that a wait is given.
 */
import { XenStoreConnection, type XsAnswer } from './connection.ts';
import { XsType } from './constants.ts';
import { type XenStoreClosedError, XenStoreError } from './errors.ts';
import { answerOfType, StoreOperations } from './operations.ts';
import { quotePath } from './path.ts';
import type { XsRequest } from './request.ts';
import { runTransaction, type XenStoreTransaction } from './transaction.ts';
import type { Transport } from './transport.ts';
import {
  receiverOfListener,
  type Watch,
  WatchEvents,
  type WatchReceiver,
  WatchTable,
} from './watch.ts';

/** The timers of a clock; tests bring their own. */
export interface Timers {
  /** Calls back once after `delayMs`; returns a handle. */
  setTimeout(callback: () => void, delayMs: number): unknown;
  /** Takes it back. */
  clearTimeout(handle: unknown): void;
}

/** What a client is made with. */
export interface XenStoreClientOptions {
  /** What bounded waits run on. Default: the system's. */
  timers?: Timers | undefined;
}

/** How a transaction is tried. */
export interface TransactionOptions {
  /** How many conflicts to bear before giving up with `EAGAIN`. Default 10. */
  attempts?: number | undefined;
}

/** What ends a wait besides the value that is waited for. */
export interface WaitOptions {
  /** Ends the wait with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Ends the wait with code `TIMEOUT`. Default: wait for ever. */
  timeoutMs?: number | undefined;
}

const systemTimers: Timers = {
  setTimeout: (callback, delayMs) => setTimeout(callback, delayMs),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
};

/**
 * A XenStore client on an open transport. All methods reject with XenStoreError: `code` is
 * XenStore's error name, or `CLOSED` once the connection has ended.
 */
export class XenStoreClient extends StoreOperations implements AsyncDisposable {
  /**
   * Resolves when the connection has ended: undefined if {@link close} was called, else with the
   * reason. Never rejects.
   */
  readonly closed: Promise<XenStoreClosedError | undefined>;
  readonly #connection: XenStoreConnection;
  readonly #watches = new WatchTable();
  readonly #timers: Timers;

  constructor(transport: Transport, options: XenStoreClientOptions = {}) {
    super();
    this.#timers = options.timers ?? systemTimers;
    let reportEnd: (error: XenStoreClosedError | undefined) => void = () => undefined;
    this.closed = new Promise((resolve) => {
      reportEnd = resolve;
    });
    this.#connection = new XenStoreConnection(transport, {
      onWatchEvent: (event) => this.#watches.dispatch(event),
      onEnd: (error) => {
        this.#watches.end(this.#watches.tokens(), error);
        reportEnd(error);
      },
    });
  }

  /**
   * Sends any request of the protocol, outside of transactions; for those that have no method here.
   * The answer has the request's type.
   */
  request(request: XsRequest): Promise<XsAnswer> {
    return this.#connection.request(request, 0);
  }

  protected override ask(request: XsRequest): Promise<XsAnswer> {
    return this.#connection.request(request, 0);
  }

  /** The directory of a domain, /local/domain/<domid>; whether it exists is not asked. */
  async getDomainPath(domid: number): Promise<string> {
    const answer = await this.ask({ type: XsType.GET_DOMAIN_PATH, domid });
    return answerOfType(answer, XsType.GET_DOMAIN_PATH).path;
  }

  /**
   * Whether a domain is connected to XenStore. xenstored answers dom0 only, others get `EACCES`.
   */
  async isDomainIntroduced(domid: number): Promise<boolean> {
    const answer = await this.ask({ type: XsType.IS_DOMAIN_INTRODUCED, domid });
    return answerOfType(answer, XsType.IS_DOMAIN_INTRODUCED).introduced;
  }

  /**
   * Removes all watches and transactions that the server holds for the caller; the watches of this
   * client end. **On /dev/xen/xenbus the caller is the whole guest: the kernel loses its watches
   * too, and with them its devices.** Meant for a guest's own start.
   */
  async resetWatches(): Promise<void> {
    // Watches that are asked for after this request outlive it.
    const tokens = this.#watches.tokens();
    await this.ask({ type: XsType.RESET_WATCHES });
    this.#watches.end(tokens, undefined);
  }

  /**
   * Calls `listener` with the path of whatever changes at or below `path`: once soon after the
   * watch
   * is set, and then at each change. It is only a hint to read again. `path` may be
   * `@introduceDomain` or `@releaseDomain`. The path of an event is relative if `path` is. When the
   * connection ends there are no more calls; {@link closed} tells.
   */
  async watch(path: string, listener: (path: string) => void): Promise<Watch> {
    const token = await this.#register(path, receiverOfListener(listener));
    const close = (): Promise<void> => this.#unregister(path, token);
    return { path, close, [Symbol.asyncDispose]: close };
  }

  /** The same as an async iterable of paths; see {@link WatchEvents} for how it ends. */
  async watchEvents(
    path: string,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<WatchEvents> {
    const { signal } = options;
    signal?.throwIfAborted();
    let finish = (): void => undefined;
    const events = new WatchEvents(path, () => finish());
    const token = await this.#register(path, events);
    const abort = (): void => events.abort(signal?.reason);
    finish = () => {
      signal?.removeEventListener('abort', abort);
      void this.#unregister(path, token);
    };
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted === true) abort();
    return events;
  }

  /**
   * Waits until the value of `path` satisfies `isExpected`, and returns it. The value is undefined
   * while there is no such node. It is read when the wait begins and again after each event of a
   * watch, so no change is missed, though a value that was there for a moment only may be.
   */
  async waitFor(
    path: string,
    isExpected: (value: string | undefined) => boolean,
    options: WaitOptions = {},
  ): Promise<string | undefined> {
    const { signal, timeoutMs } = options;
    signal?.throwIfAborted();
    const stop = new AbortController();
    let seen = 'it was not read yet';
    const abort = (): void => stop.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    const timer =
      timeoutMs === undefined
        ? undefined
        : this.#timers.setTimeout(() => stop.abort(timeoutError(path, timeoutMs, seen)), timeoutMs);
    const search = async (): Promise<string | undefined> => {
      for await (const _ of await this.watchEvents(path, { signal: stop.signal })) {
        const value = await this.tryRead(path);
        seen = value === undefined ? 'it does not exist' : `it holds ${JSON.stringify(value)}`;
        if (isExpected(value)) return value;
      }
      throw new XenStoreError('CLOSED', `The wait for ${quotePath(path)} was ended.`, { path });
    };
    try {
      // The race makes the end of the wait independent of a server that does not answer.
      return await Promise.race([search(), rejectionOf(stop.signal)]);
    } finally {
      if (timer !== undefined) this.#timers.clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      stop.abort();
    }
  }

  /**
   * Runs `action` in a transaction, commits it and returns what `action` did. When another client
   * got in between, all of it is done again, up to `attempts` times: `action` must bear being
   * called more than once. When it throws, nothing is changed and its error is passed on.
   */
  async transaction<T>(
    action: (transaction: XenStoreTransaction) => T | Promise<T>,
    options: TransactionOptions = {},
  ): Promise<T> {
    return await runTransaction(this.#connection, action, options.attempts ?? 10);
  }

  /**
   * Ends the connection. What is pending is rejected at once with XenStoreClosedError, iterables
   * are done, open transactions are dropped and watches removed by the server.
   */
  async close(): Promise<void> {
    this.#connection.close();
    await this.closed;
  }

  /** Closes it, as `close()` does: for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Sets a watch. The receiver is entered first: the first event may overtake the answer. */
  async #register(path: string, receiver: WatchReceiver): Promise<string> {
    const token = this.#watches.add(receiver);
    try {
      await this.ask({ type: XsType.WATCH, path, token });
      return token;
    } catch (error) {
      this.#watches.delete(token);
      throw error;
    }
  }

  async #unregister(path: string, token: string): Promise<void> {
    if (!this.#watches.delete(token)) return;
    try {
      await this.ask({ type: XsType.UNWATCH, path, token });
    } catch {
      // The server does not have the watch, or is gone: either way there is none, as wanted.
    }
  }
}

function timeoutError(path: string, timeoutMs: number, seen: string): XenStoreError {
  return new XenStoreError(
    'TIMEOUT',
    `${quotePath(path)} did not become what was waited for within ${timeoutMs} ms; ${seen}.`,
    { path },
  );
}

/** A promise that rejects with the signal's reason once that aborts. */
function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
