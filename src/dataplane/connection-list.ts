/**
 * Connections to be looked at in this turn. An array would do, but one whose length is set to zero
 * gives its memory back, and takes new with the next push: garbage in each turn.
 */

import type { NbdConnection } from './nbd-connection.ts';

export class ConnectionList {
  count = 0;
  readonly #places: (NbdConnection | undefined)[] = [];

  push(connection: NbdConnection): void {
    this.#places[this.count] = connection;
    this.count += 1;
  }

  /** The one at `index`, which leaves its place; the places are free again after `count` = 0. */
  take(index: number): NbdConnection | undefined {
    const connection = this.#places[index];
    this.#places[index] = undefined;
    return connection;
  }
}
