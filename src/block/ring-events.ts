/**
 * Waits for the event channel of a ring on the event loop of this thread. The channel stays masked
 * while there is work: a busy back end costs no wake-up for each answer.
 */

import type { EventChannel } from '../host/index.ts';
import { type ReadableWatch, watchReadable } from '../sys/index.ts';

export class RingEvents {
  readonly #channel: EventChannel;
  readonly #onEvent: () => boolean;
  readonly #watch: ReadableWatch;
  #isMasked = false;
  #isStopped = false;

  /** `onEvent` looks at the ring, and returns whether it has to look again soon. */
  constructor(channel: EventChannel, onEvent: () => boolean) {
    this.#channel = channel;
    this.#onEvent = onEvent;
    this.#watch = watchReadable(channel.fd, () => this.#readable());
  }

  /** Ends the watch; the channel is the host's to close. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#watch.stop();
  }

  #readable(): void {
    if (this.#isStopped) return;
    if (this.#channel.consume()) this.#isMasked = true;
    this.#look();
  }

  #look(): void {
    if (this.#isStopped) return;
    const mustLookAgain = this.#onEvent();
    if (this.#isStopped) return;
    if (mustLookAgain) {
      // Not in a loop: timers and other sockets of the program get their turn.
      setImmediate(() => this.#look());
      return;
    }
    // An event that came while the channel was masked makes the descriptor readable at once.
    if (this.#isMasked) this.#channel.unmask();
    this.#isMasked = false;
    this.#watch.rearm();
  }
}
