/**
 * Connections whose next request found no room in their lane: all operations are in progress, or
 * as many bytes as may be. They go on one after the other and nobody overtakes them, so that a
 * large request is not kept waiting by small ones. Only what takes nothing that is shared does not
 * stand in line: a small request of a client that has no other.
 */

import type { Operation } from './operation.ts';

/** A connection, as far as it waits. */
export interface WaitingClient {
  /** Goes on, and asks again. */
  wake(): void;
}

/** Where the operations are. */
export interface OperationSource {
  hasRoomFor(lengthBytes: number, isOwn: boolean): boolean;
  take(lengthBytes: number, isOwn: boolean): Operation | undefined;
}

interface Want {
  readonly lengthBytes: number;
  readonly isOwn: boolean;
}

export class WaitingClients {
  readonly #source: OperationSource;
  /** What each of them waits for, in the order in which they came. */
  readonly #wants = new Map<WaitingClient, Want>();

  constructor(source: OperationSource) {
    this.#source = source;
  }

  get isEmpty(): boolean {
    return this.#wants.size === 0;
  }

  /**
   * An operation that counts as `lengthBytes`; undefined when `client` has to wait here. `isOwn`:
   * it has no other in progress.
   */
  take(client: WaitingClient, lengthBytes: number, isOwn: boolean): Operation | undefined {
    if (this.#wants.size === 0 || (isOwn && lengthBytes === 0)) {
      const operation = this.#source.take(lengthBytes, isOwn);
      if (operation === undefined) this.#wants.set(client, { lengthBytes, isOwn });
      else if (this.#wants.size > 0) this.#served(client);
      return operation;
    }
    const isNext = this.#first() === client;
    const operation = isNext ? this.#source.take(lengthBytes, isOwn) : undefined;
    if (operation === undefined) this.#wants.set(client, { lengthBytes, isOwn });
    else this.#served(client);
    return operation;
  }

  /** Something was given back: the first in line goes on if it suffices. */
  wakeFirst(): void {
    const first = this.#first();
    const want = first && this.#wants.get(first);
    if (want === undefined) return;
    if (this.#source.hasRoomFor(want.lengthBytes, want.isOwn)) first?.wake();
  }

  /** `client` has gone. */
  remove(client: WaitingClient): void {
    this.#wants.delete(client);
  }

  #served(client: WaitingClient): void {
    if (this.#wants.delete(client)) this.wakeFirst();
  }

  #first(): WaitingClient | undefined {
    if (this.#wants.size === 0) return undefined;
    return this.#wants.keys().next().value;
  }
}
