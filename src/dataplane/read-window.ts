/**
 * How much of the reads of one client may be in progress: little at first, and more the more of its
 * replies it has taken. A client that asks for much and reads nothing so holds no more than it is
 * worth, whatever its limits allow, and one that reads soon has all of them.
 */

import { untakenBytesOf } from '../sys/index.ts';

/** What a client has that has taken nothing yet. */
const FIRST_BYTES = 64 * 1024;

export class ReadWindow {
  readonly #fd: number;
  #lengthBytes = FIRST_BYTES;
  #sentBytes = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Bytes of replies were handed to the socket. */
  sent(lengthBytes: number): void {
    this.#sentBytes += lengthBytes;
  }

  /** Whether `lengthBytes` may be in progress in all. */
  admits(lengthBytes: number): boolean {
    if (lengthBytes <= this.#lengthBytes) return true;
    if (lengthBytes > widthFor(this.#sentBytes)) return false;
    // What lies in the socket was sent, and is not taken.
    const takenBytes = this.#sentBytes - untakenBytesOf(this.#fd);
    this.#lengthBytes = Math.max(this.#lengthBytes, widthFor(takenBytes));
    return lengthBytes <= this.#lengthBytes;
  }

  /** The client has stopped taking its replies. */
  close(): void {
    this.#lengthBytes = FIRST_BYTES;
    this.#sentBytes = 0;
  }
}

function widthFor(takenBytes: number): number {
  return FIRST_BYTES + 2 * Math.max(0, takenBytes);
}
