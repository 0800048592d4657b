/**
 * Tells whether this guest was restored or has migrated since some moment. Event channels from
 * before are dead then, and closing one is a BUG in the kernel, so a wrong "no" is the worst answer
 * that this project could give.
 *
 * A changed domain id proves a restore. The same id proves nothing: on another host the guest may
 * have got the number it had. But after each resume the kernel registers all watches anew, and a
 * watch fires when it is registered; so does the one on `domid`, which fires at no other time.
 *
 * That event could still be under way when we ask. The kernel lets nobody register a watch before
 * its own are done (xs_watch_rwsem of drivers/xen/xenbus/xenbus_xs.c), and hands events out in
 * order: once a new watch of ours has fired, the event of the old one is here, if there is any.
 */

import { type Watch, type XenStoreClient, XenStoreError } from 'xenstore-client';
import { parseDomid } from './observation.ts';

/** A moment to compare with. */
export interface RestoreMark {
  /** Our domain id then; undefined when it was not known. */
  readonly domid: number | undefined;
  /** How often the watch had fired. */
  readonly firings: number;
}

export class RestoreProbe {
  readonly #store: XenStoreClient;
  #watch: Watch | undefined;
  #firings = 0;

  constructor(store: XenStoreClient) {
    this.#store = store;
  }

  /** Begins to listen. `onChange` is called whenever a restore is possible. */
  async start(onChange: () => void): Promise<void> {
    this.#watch = await this.#watchDomid(() => {
      this.#firings++;
      onChange();
    });
  }

  mark(domid: number | undefined): RestoreMark {
    return { domid, firings: this.#firings };
  }

  /** Whether the guest was restored since `mark`, or may have been. */
  async hasRestoredSince(mark: RestoreMark): Promise<boolean> {
    try {
      const barrier = await this.#watchDomid(() => undefined);
      await barrier.close();
      const domid = parseDomid(await this.#store.tryRead('domid'));
      const isOther = domid !== undefined && mark.domid !== undefined && domid !== mark.domid;
      return isOther || this.#firings !== mark.firings;
    } catch (error) {
      if (error instanceof XenStoreError) {
        // XenStore is gone, and with it every way to know.
        return this.#firings !== mark.firings;
      }
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#watch?.close();
  }

  /** Watches our domain id; resolves when the watch has fired for the first time. */
  async #watchDomid(onEvent: () => void): Promise<Watch> {
    let hear = (): void => undefined;
    const heard = new Promise<void>((resolve) => {
      hear = resolve;
    });
    const watch = await this.#store.watch('domid', () => {
      onEvent();
      hear();
    });
    await Promise.race([heard, this.#store.closed]);
    return watch;
  }
}
