/**
 * Watches: who asked for which token, and the two shapes in which events are handed out, a
 * listener and an async iterable. docs/misc/xenstore.txt, "Watches".
 *
 * A watch fires once when it is set, may fire without a change, and several changes may be one
 * event. So an event never says more than "look again".
 */
import type { XenStoreClosedError } from './errors.ts';
import type { WatchEvent } from './reply.ts';

/** Different paths that a slow reader of {@link WatchEvents} may have waiting for it. */
const QUEUED_PATHS_MAX = 1024;

/** A watch that calls a listener. */
export interface Watch extends AsyncDisposable {
  /** The path as it was given. */
  readonly path: string;
  /**
   * Ends the watch. The listener is not called again from this moment on, even for events that are
   * under way. Resolves when the server has answered or the connection has ended.
   */
  close(): Promise<void>;
}

/** What the table of watches needs of each. */
export interface WatchReceiver {
  /** Something changed at this path or below. Must not throw. */
  receive(path: string): void;
  /** The watch is gone: with the connection (an error if that was not our wish) or by a reset. */
  end(error: XenStoreClosedError | undefined): void;
}

/** The watches of one connection by token. */
export class WatchTable {
  readonly #receivers = new Map<string, WatchReceiver>();
  #lastToken = 0;

  /** Enters a receiver; returns the token to register it with. Tokens are never used again. */
  add(receiver: WatchReceiver): string {
    this.#lastToken += 1;
    const token = String(this.#lastToken);
    this.#receivers.set(token, receiver);
    return token;
  }

  /** Returns whether the token was still entered. */
  delete(token: string): boolean {
    return this.#receivers.delete(token);
  }

  tokens(): string[] {
    return [...this.#receivers.keys()];
  }

  /** Events of a token that is not entered are those of a watch that ended a moment ago. */
  dispatch(event: WatchEvent): void {
    this.#receivers.get(event.token)?.receive(event.path);
  }

  /** Ends the watches with these tokens. */
  end(tokens: readonly string[], error: XenStoreClosedError | undefined): void {
    for (const token of tokens) {
      const receiver = this.#receivers.get(token);
      this.#receivers.delete(token);
      receiver?.end(error);
    }
  }
}

/** A receiver that calls a listener with the path of each event. */
export function receiverOfListener(listener: (path: string) => void): WatchReceiver {
  return {
    receive(path) {
      try {
        listener(path);
      } catch (error) {
        // A fault of the program, not of the connection: it surfaces as an uncaught exception, and
        // the messages behind this one are still served.
        queueMicrotask(() => {
          throw error;
        });
      }
    },
    end() {},
  };
}

interface Taker {
  resolve(result: IteratorResult<string, undefined>): void;
  reject(error: unknown): void;
}

/**
 * The events of a watch as an async iterable of paths. Paths that wait to be taken are kept once
 * each; a reader so slow that more than 1024 different ones wait gets the watched path
 * instead, which means the same: look again, at all of it.
 *
 * It ends when it is left (`break`, `return`), when the client is closed by this program, or by
 * `resetWatches`; it throws XenStoreClosedError when the connection ends otherwise, and the
 * signal's reason when that aborts.
 */
export class WatchEvents implements AsyncIterableIterator<string, undefined>, WatchReceiver {
  /** The path as it was given. */
  readonly path: string;
  readonly #onFinish: () => void;
  readonly #queue = new Set<string>();
  readonly #takers: Taker[] = [];
  #hasEnded = false;
  /** Thrown once to the next taker after the end. */
  #endError: unknown;

  /** `onFinish` is called once, when no more events are wanted or possible. */
  constructor(path: string, onFinish: () => void) {
    this.path = path;
    this.#onFinish = onFinish;
  }

  /** Hands a path to the reader, or keeps it until he comes. */
  receive(path: string): void {
    if (this.#hasEnded) return;
    const taker = this.#takers.shift();
    if (taker !== undefined) {
      taker.resolve({ value: path, done: false });
      return;
    }
    if (this.#queue.size >= QUEUED_PATHS_MAX && !this.#queue.has(path)) {
      this.#queue.clear();
      this.#queue.add(this.path);
      return;
    }
    this.#queue.add(path);
  }

  end(error: XenStoreClosedError | undefined): void {
    this.#finish(error);
  }

  /** Ends the watch and makes the reader throw `reason`. */
  abort(reason: unknown): void {
    this.#finish(reason);
  }

  /** The path that fired next; waits for it. */
  next(): Promise<IteratorResult<string, undefined>> {
    for (const path of this.#queue) {
      this.#queue.delete(path);
      return Promise.resolve({ value: path, done: false });
    }
    if (!this.#hasEnded) {
      return new Promise((resolve, reject) => this.#takers.push({ resolve, reject }));
    }
    const error = this.#endError;
    this.#endError = undefined;
    return error === undefined
      ? Promise.resolve({ value: undefined, done: true })
      : Promise.reject(error);
  }

  /** Ends the watch; a reader that waits in {@link next} is told that it is done. */
  return(): Promise<IteratorResult<string, undefined>> {
    this.#finish(undefined);
    return Promise.resolve({ value: undefined, done: true });
  }

  /** Itself: for `for await`. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Ends the watch, as {@link return} does: for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #finish(error: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#queue.clear();
    const [first, ...others] = this.#takers.splice(0);
    if (error === undefined) first?.resolve({ value: undefined, done: true });
    else if (first === undefined) this.#endError = error;
    else first.reject(error);
    for (const taker of others) taker.resolve({ value: undefined, done: true });
    this.#onFinish();
  }
}
