/**
 * How the device transport learns that there is something to read.
 *
 * Node has no public way to poll a character device: libuv takes it for a file, so net.Socket
 * and tty.ReadStream refuse it, and fs.read would park a thread of the pool in the kernel until
 * XenStore speaks, where process.exit() waits for it, for ever. So the transport only makes
 * reads that cannot block (O_NONBLOCK, on the main thread) and asks a {@link ReadableWaiter} when
 * to
 * try. The default here is a timer. A program that has epoll (through a native library or a
 * thread of its own) brings a waiter that sleeps in the kernel instead.
 */

/** Tells when a descriptor may be readable. */
export interface ReadableWaiter {
  /**
   * Calls `onReadable` once, as soon as `fd` has bytes to read; at once if it has some already.
   * Too many calls do no harm, a missing one stalls the connection. Never calls from within.
   * Asked again only after the call.
   */
  wait(fd: number, onReadable: () => void): void;
  /** A hint: a request was just sent, so an answer is likely soon. */
  expectSoon?(): void;
  /** Ends the wait, if there is one; no call follows. Called before `fd` is closed. */
  close(): void;
}

/** How often {@link PollingWaiter} looks. */
export interface PollingWaiterOptions {
  /** Time between two looks while answers are likely. Default 1. */
  busyIntervalMs?: number | undefined;
  /**
   * Time between two looks when nothing has happened for long: how late a watch may be. Default 20.
   */
  idleIntervalMs?: number | undefined;
}

/** Each look that finds nothing makes the pause longer by this factor, up to the idle interval. */
const BACK_OFF = 1.1;

/**
 * The default: looks again after a pause, which is short after traffic and grows to 20 ms in
 * silence. That is some 50 cheap system calls a second, and watches that are up to 20 ms late.
 */
export class PollingWaiter implements ReadableWaiter {
  readonly #busyIntervalMs: number;
  readonly #idleIntervalMs: number;
  #pauseMs: number;
  #timer: NodeJS.Timeout | undefined;
  #onReadable: (() => void) | undefined;

  constructor(options: PollingWaiterOptions = {}) {
    this.#busyIntervalMs = options.busyIntervalMs ?? 1;
    this.#idleIntervalMs = options.idleIntervalMs ?? 20;
    this.#pauseMs = this.#busyIntervalMs;
  }

  wait(_fd: number, onReadable: () => void): void {
    this.#onReadable = onReadable;
    this.#schedule();
    this.#pauseMs = Math.min(this.#pauseMs * BACK_OFF, this.#idleIntervalMs);
  }

  expectSoon(): void {
    this.#pauseMs = this.#busyIntervalMs;
    if (this.#onReadable !== undefined) this.#schedule();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#onReadable = undefined;
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const onReadable = this.#onReadable;
      this.#onReadable = undefined;
      onReadable?.();
    }, this.#pauseMs);
  }
}
