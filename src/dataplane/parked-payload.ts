/**
 * The first bytes of a payload whose rest is late, in private memory: they give way to somebody who
 * can use their granted page, and come back when there is a page again.
 */

import { mapPrivate, PAGE_SIZE, unmapMemory } from '../sys/index.ts';
import type { Engine } from './engine.ts';
import type { Operation } from './operation.ts';

export class ParkedPayload {
  #address = 0;
  /** How many there are. */
  bytes = 0;

  /** Takes from a write what has arrived, if that can be. */
  park(engine: Engine, operation: Operation): void {
    if (this.bytes > 0) return;
    const address = mapPrivate(PAGE_SIZE);
    this.bytes = engine.park(operation, address);
    if (this.bytes > 0) this.#address = address;
    else unmapMemory(address, PAGE_SIZE);
  }

  /** Gives it back to the write, which has room for it. */
  giveBack(engine: Engine, operation: Operation): void {
    engine.fillFrom(operation, this.#address, this.bytes);
    this.drop();
  }

  drop(): void {
    if (this.bytes > 0) unmapMemory(this.#address, PAGE_SIZE);
    this.bytes = 0;
  }
}
