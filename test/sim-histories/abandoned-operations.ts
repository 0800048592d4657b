/**
 * Operations of clients that have gone: they run to their end and are not answered. Once that end
 * has come, what they may have written is written, and the model is told.
 */

import type { Operation } from '../../src/dataplane/operation.ts';
import type { NbdRequester } from './nbd-requester.ts';

export class AbandonedOperations {
  readonly #clients = new Map<Operation, NbdRequester>();

  /** `client` has gone, and those of the lane's operations that nobody owns are its. */
  add(client: NbdRequester, operations: ReadonlySet<Operation>): void {
    let isOver = true;
    for (const operation of operations) {
      if (!isAbandoned(operation) || this.#clients.has(operation)) continue;
      this.#clients.set(operation, client);
      isOver = false;
    }
    if (isOver) client.abandonedAreOver();
  }

  /** Tells the clients whose last operation is over. */
  look(): void {
    for (const [operation, client] of this.#clients) {
      if (isAbandoned(operation)) continue;
      this.#clients.delete(operation);
      if (![...this.#clients.values()].includes(client)) client.abandonedAreOver();
    }
  }
}

function isAbandoned(operation: Operation): boolean {
  return operation.isActive && operation.requester === undefined;
}
