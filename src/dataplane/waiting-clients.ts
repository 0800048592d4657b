/**
 * Connections whose next request found no room in their lane: all operations are in progress, or
 * as many bytes as may be. They go on one after the other and nobody overtakes them, so that a
 * large request is not kept waiting by small ones.
 */

import type { Operation } from './operation.ts';

/** A connection, as far as it waits. */
export interface WaitingClient {
  /** Goes on, and asks again. */
  wake(): void;
}

/** Where the operations are. */
export interface OperationSource {
  hasRoomFor(lengthBytes: number): boolean;
  take(lengthBytes: number): Operation | undefined;
}

export class WaitingClients {
  readonly #source: OperationSource;
  /** What each of them waits for, in the order in which they came. */
  readonly #lengths = new Map<WaitingClient, number>();

  constructor(source: OperationSource) {
    this.#source = source;
  }

  get isEmpty(): boolean {
    return this.#lengths.size === 0;
  }

  /** An operation that counts as `lengthBytes`; undefined when `client` has to wait here. */
  take(client: WaitingClient, lengthBytes: number): Operation | undefined {
    const first = this.#first();
    const isNext = first === undefined || first === client;
    const operation = isNext ? this.#source.take(lengthBytes) : undefined;
    if (operation === undefined) {
      this.#lengths.set(client, lengthBytes);
    } else if (first !== undefined) {
      this.#lengths.delete(client);
      this.wakeFirst();
    }
    return operation;
  }

  /** Something was given back: the first in line goes on if it suffices. */
  wakeFirst(): void {
    const first = this.#first();
    if (first === undefined) return;
    if (this.#source.hasRoomFor(this.#lengths.get(first) ?? 0)) first.wake();
  }

  /** `client` has gone. */
  remove(client: WaitingClient): void {
    this.#lengths.delete(client);
  }

  #first(): WaitingClient | undefined {
    if (this.#lengths.size === 0) return undefined;
    return this.#lengths.keys().next().value;
  }
}
