/** The watches of one vbd: our directory, and the directory of its back end. */

import type { Watch, XenStoreClient } from 'xenstore-client';

export class VbdWatches {
  readonly #store: XenStoreClient;
  readonly #onChange: () => void;
  #frontend: Watch | undefined;
  #backend: Watch | undefined;

  constructor(store: XenStoreClient, onChange: () => void) {
    this.#store = store;
    this.#onChange = onChange;
  }

  /** Watches the vbd's directory. The end of the store is told, too. */
  async start(vbdPath: string): Promise<void> {
    void this.#store.closed.then(this.#onChange);
    this.#frontend = await this.#store.watch(vbdPath, this.#onChange);
  }

  /** Watches the directory of this back end from now on, instead of the last one. */
  async follow(backendPath: string): Promise<void> {
    const last = this.#backend;
    if (last?.path !== backendPath) {
      this.#backend = await this.#store.watch(backendPath, this.#onChange);
      await last?.close();
    }
  }

  async close(): Promise<void> {
    await this.#frontend?.close();
    await this.#backend?.close();
  }
}
