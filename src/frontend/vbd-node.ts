/**
 * Writes to our own directory in XenStore. Each is one transaction that first reads our state:
 * when the toolstack has removed the directory, a plain write would bring it back as a ghost that
 * no one removes.
 */

import { type XenStoreClient, XenStoreError } from 'xenstore-client';
import {
  encodeFrontendKeys,
  type FrontendOffer,
  isConnectionKey,
  XenbusState,
} from '../blkif/index.ts';

/** What a transaction offers here. */
type Transaction = Pick<XenStoreClient, 'read' | 'write' | 'rm' | 'directory'>;

/** The number that stands before an error's text: Linux's for a failure of no particular kind. */
const EIO = 5;
/** Conflicts that a write bears: the toolstack and the back end are busy at the same moments. */
const ATTEMPTS = 20;

export class VbdNode {
  /** Relative to the guest's home, e.g. `device/vbd/51728`. */
  readonly path: string;
  readonly #store: XenStoreClient;

  constructor(store: XenStoreClient, path: string) {
    this.#store = store;
    this.path = path;
  }

  /** Sets our state. Returns false when the directory is gone; then nothing is written. */
  async switchState(state: XenbusState): Promise<boolean> {
    return await this.#change(async (transaction) => {
      await transaction.write(`${this.path}/state`, String(state));
    });
  }

  /** Removes what earlier connections left, and sets our state, in one transaction. */
  async reset(state: XenbusState): Promise<boolean> {
    return await this.#change(async (transaction) => {
      await this.#removeConnectionKeys(transaction);
      await transaction.write(`${this.path}/state`, String(state));
    });
  }

  /** {@link reset} for the end of a life, when nobody tries again: so it is tried twice here. */
  async leave(): Promise<boolean> {
    try {
      return await this.reset(XenbusState.Closed);
    } catch (error) {
      if (!(error instanceof XenStoreError) || error.code !== 'EAGAIN') {
        throw error;
      }
      return await this.reset(XenbusState.Closed);
    }
  }

  /** Removes what connections left and leaves our state as it is. */
  async removeConnectionKeys(): Promise<boolean> {
    return await this.#change((transaction) => this.#removeConnectionKeys(transaction));
  }

  /** Writes the keys of a connection and then our state, Initialised, in one transaction. */
  async offer(offer: FrontendOffer): Promise<boolean> {
    return await this.#change(async (transaction) => {
      await this.#removeConnectionKeys(transaction);
      for (const [key, value] of encodeFrontendKeys(offer)) {
        await transaction.write(`${this.path}/${key}`, value);
      }
      await transaction.write(`${this.path}/state`, String(XenbusState.Initialised));
    });
  }

  /**
   * Leaves an error where operators look for it, as xenbus_dev_error of Linux does: below `error/`
   * in our own home, a number before the text.
   */
  async reportError(message: string): Promise<void> {
    await this.#store.write(`error/${this.path}/error`, `${EIO} ${message.slice(0, 1000)}`);
  }

  /** Takes it back, when the vbd works. That it cannot be removed is no reason not to work. */
  async removeError(): Promise<void> {
    try {
      await this.#store.rm(`error/${this.path}`);
    } catch (error) {
      if (!(error instanceof XenStoreError) || error.code === 'CLOSED') {
        throw error;
      }
    }
  }

  async #removeConnectionKeys(transaction: Transaction): Promise<void> {
    for (const name of await transaction.directory(this.path)) {
      if (isConnectionKey(name)) {
        await transaction.rm(`${this.path}/${name}`);
      }
    }
  }

  /**
   * Runs `action` in a transaction in which our state exists. Returns false when that is missing,
   * or something else that the transaction looked at: after a restore of the guest, an open
   * transaction finds nothing at all.
   */
  async #change(action: (transaction: Transaction) => Promise<void>): Promise<boolean> {
    return await this.#store.transaction(
      (transaction) =>
        unlessMissing(transaction.read(`${this.path}/state`).then(() => action(transaction))),
      { attempts: ATTEMPTS },
    );
  }
}

/** Whether `done` came to its end; false when something it needs is not there. */
async function unlessMissing(done: Promise<void>): Promise<boolean> {
  try {
    await done;
    return true;
  } catch (error) {
    if (error instanceof XenStoreError && error.code === 'ENOENT') {
      return false;
    }
    throw error;
  }
}
