import type { Operation, Requester } from './operation.ts';

/** Waits for the flush that ends a lane, in the place of a client. */
export class FinalFlush implements Requester {
  readonly #done: (operation: Operation) => void;

  constructor(done: (operation: Operation) => void) {
    this.#done = done;
  }

  replyReady(operation: Operation): void {
    this.#done(operation);
  }

  payloadWanted(): void {}

  payloadRefused(): void {}
}
