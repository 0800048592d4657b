/**
 * Tells the XenStore client when /dev/xen/xenbus has something to read, by epoll instead of the
 * client's default timer: an answer is seen at once, and an idle daemon does not wake up.
 */

import type { ReadableWaiter } from 'xenstore-client';
import { type ReadableWatch, watchReadable } from '../sys/index.ts';

/** For one descriptor. */
export class EpollWaiter implements ReadableWaiter {
  #watch: ReadableWatch | undefined;
  #onReadable: () => void = () => {};

  wait(fd: number, onReadable: () => void): void {
    this.#onReadable = onReadable;
    if (this.#watch === undefined) this.#watch = watchReadable(fd, () => this.#onReadable());
    else this.#watch.rearm();
  }

  close(): void {
    this.#watch?.stop();
    this.#watch = undefined;
  }
}
