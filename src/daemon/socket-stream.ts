/**
 * A stream over a connected socket of a kind that Node does not know. Made for handshakes, which
 * are small: the main thread waits for it as it does for XenStore's device, and a lane takes the
 * descriptor afterwards.
 */

import { Duplex } from 'node:stream';
import {
  allocateMemory,
  closeFd,
  Errno,
  errno,
  libc,
  type ReadableWatch,
  SysError,
  watchReadable,
} from '../sys/index.ts';

const CHUNK_BYTES = 64 * 1024;
const MSG_NOSIGNAL = 0x4000;
const SHUT_WR = 1;

// One for all streams: it is filled and emptied within one call.
const memory = allocateMemory(CHUNK_BYTES);
const bytes = new Uint8Array(memory.buffer);

interface Unsent {
  readonly chunk: Uint8Array;
  sentBytes: number;
  readonly done: (error?: Error) => void;
}

export class SocketStream extends Duplex {
  /** Non-blocking, and closed with the stream. */
  readonly fd: number;
  readonly #watch: ReadableWatch;
  #isReadWanted = false;
  #unsent: Unsent | undefined;

  /** The stream owns `fd` from now on. */
  constructor(fd: number) {
    super({ allowHalfOpen: true, emitClose: true });
    this.fd = fd;
    this.#watch = watchReadable(fd, () => this.#ready());
  }

  override _read(): void {
    this.#isReadWanted = true;
    this.#arm();
  }

  override _write(
    chunk: Uint8Array,
    _encoding: BufferEncoding,
    done: (error?: Error | null) => void,
  ): void {
    this.#unsent = { chunk, sentBytes: 0, done };
    this.#send();
    this.#arm();
  }

  override _final(done: (error?: Error | null) => void): void {
    libc.shutdown(this.fd, SHUT_WR);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#watch.stop();
    closeFd(this.fd);
    done(error);
  }

  #ready(): void {
    if (this.destroyed) return;
    if (this.#isReadWanted) this.#receive();
    this.#send();
    this.#arm();
  }

  /** Waits for what is wanted now: the watch tells once for each time it is armed. */
  #arm(): void {
    if (this.destroyed) return;
    if (this.#unsent !== undefined) this.#watch.rearmForWriting(this.#isReadWanted);
    else if (this.#isReadWanted) this.#watch.rearm();
  }

  #receive(): void {
    const count = libc.recv(this.fd, memory.address, CHUNK_BYTES, 0);
    if (count < 0) {
      const number = errno();
      if (number !== Errno.EAGAIN && number !== Errno.EINTR) {
        this.destroy(new SysError('recv', number));
      }
      return;
    }
    this.#isReadWanted = false;
    // The stream asks again as soon as it wants more.
    this.push(count === 0 ? null : Buffer.from(bytes.subarray(0, count)));
  }

  #send(): void {
    const unsent = this.#unsent;
    if (unsent === undefined) return;
    const { chunk } = unsent;
    while (unsent.sentBytes < chunk.length) {
      const piece = chunk.subarray(unsent.sentBytes, unsent.sentBytes + CHUNK_BYTES);
      bytes.set(piece);
      const count = libc.send(this.fd, memory.address, piece.length, MSG_NOSIGNAL);
      if (count < 0) {
        const number = errno();
        if (number === Errno.EAGAIN) return;
        if (number === Errno.EINTR) continue;
        this.#unsent = undefined;
        unsent.done(new SysError('send', number));
        return;
      }
      unsent.sentBytes += count;
    }
    this.#unsent = undefined;
    unsent.done();
  }
}
