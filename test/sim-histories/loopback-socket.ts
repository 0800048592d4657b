/**
 * Sockets without a kernel: descriptors that the calls of src/sys understand in this process, with
 * a client at the other end that decides how many bytes arrive and how many are taken. So the
 * connections of a lane run as they are, byte for byte, and nothing depends on the machine.
 */

import { allocateMemory, libc } from '../../src/sys/index.ts';

/** No real descriptor is as large. */
const FIRST_FD = 0x1000_0000;
const EFD_NONBLOCK = 0x800;

/** The other end. */
export interface SocketPeer {
  /** Bytes that the lane has sent; the memory is only valid during the call. */
  received(bytes: Buffer): void;
}

interface Piece {
  readonly address: number;
  readonly lengthBytes: number;
}

const open = new Map<number, LoopbackSocket>();
let nextFd = FIRST_FD;

export class LoopbackSocket {
  readonly fd: number;
  readonly #peer: SocketPeer;
  /** What the client has sent and the lane has not read. */
  readonly #input: Piece[] = [];
  #inputOffset = 0;
  #sentBytes = 0;
  /** How many bytes have arrived and were not read. */
  #arrivedBytes = 0;
  /** How many bytes of replies fit before the client must take some. */
  roomBytes: number = Number.POSITIVE_INFINITY;
  /** The client has closed its side: after the last byte there is an end. */
  isEnded = false;
  /** The connection is gone, as a reset leaves it. */
  isHungUp = false;

  constructor(peer: SocketPeer) {
    this.#peer = peer;
    this.fd = nextFd;
    nextFd += 1;
    open.set(this.fd, this);
  }

  get isReadable(): boolean {
    return this.#arrivedBytes > 0 || (this.isEnded && this.underwayBytes === 0);
  }

  get isWritable(): boolean {
    return this.roomBytes > 0;
  }

  /** Adds bytes at an address to what the client sends; they arrive by {@link deliver}. */
  send(address: number, lengthBytes: number): void {
    if (lengthBytes === 0) return;
    this.#input.push({ address, lengthBytes });
    this.#sentBytes += lengthBytes;
  }

  /** Bytes that were sent and have not arrived. */
  get underwayBytes(): number {
    return this.#sentBytes - this.#arrivedBytes;
  }

  deliver(lengthBytes: number): void {
    this.#arrivedBytes += Math.min(lengthBytes, this.underwayBytes);
  }

  /** Loses what was sent and has not arrived. */
  cutInput(): void {
    this.#sentBytes = this.#arrivedBytes;
  }

  close(): void {
    open.delete(this.fd);
  }

  // --- the calls of the lane

  read(address: number, sizeBytes: number): number {
    if (this.isHungUp) return fail(-1);
    if (this.#arrivedBytes === 0) return this.isReadable ? 0 : fail(emptyFd);
    let done = 0;
    while (done < sizeBytes && this.#arrivedBytes > 0) {
      const piece = this.#input[0] as Piece;
      const left = Math.min(piece.lengthBytes - this.#inputOffset, this.#arrivedBytes);
      const count = Math.min(sizeBytes - done, left);
      memcpy(address + done, piece.address + this.#inputOffset, count);
      done += count;
      this.#arrivedBytes -= count;
      this.#sentBytes -= count;
      this.#inputOffset += count;
      if (this.#inputOffset === piece.lengthBytes) {
        this.#input.shift();
        this.#inputOffset = 0;
      }
    }
    return done;
  }

  readv(address: number, count: number): number {
    if (this.isHungUp || this.#arrivedBytes === 0) return this.read(address, 0);
    const pieces = piecesOf(address, count);
    let done = 0;
    for (const piece of pieces) {
      if (this.#arrivedBytes === 0) break;
      done += this.read(piece.address, piece.lengthBytes);
    }
    return done;
  }

  writev(address: number, count: number): number {
    if (this.isHungUp) return fail(-1);
    if (this.roomBytes === 0) return fail(emptyFd);
    let done = 0;
    for (const piece of piecesOf(address, count)) {
      const length = Math.min(piece.lengthBytes, this.roomBytes);
      this.roomBytes -= length;
      memcpy(copy.address, piece.address, length);
      this.#peer.received(copied.subarray(0, length));
      done += length;
      if (this.roomBytes === 0) break;
    }
    return done;
  }
}

/** Longest piece of a reply; nothing here is as large. */
const COPY_BYTES = 1 << 20;
const copy = allocateMemory(COPY_BYTES);
const copied = Buffer.from(copy.buffer);
const IOVEC_BYTES = 16;
const list = allocateMemory(1024 * IOVEC_BYTES);
const words = new Uint32Array(list.buffer);

function piecesOf(address: number, count: number): Piece[] {
  memcpy(list.address, address, count * IOVEC_BYTES);
  return Array.from({ length: count }, (_, index) => ({
    address: (words[index * 4 + 1] as number) * 2 ** 32 + (words[index * 4] as number),
    lengthBytes: words[index * 4 + 2] as number,
  }));
}

// The calls are replaced for good: real descriptors go on to the real ones.
const { memcpy } = libc;
const { read, recv, readv, writev } = libc;
/** Reading this one always fails with EAGAIN. */
const emptyFd = libc.eventfd(0, EFD_NONBLOCK);

/** Fails as a call on `fd` does, which sets the reason. */
function fail(fd: number): -1 {
  read(fd, list.address, 8);
  return -1;
}

const calls: { -readonly [Name in keyof typeof libc]: (typeof libc)[Name] } = libc;
calls.recv = (fd, address, size, flags) =>
  open.get(fd)?.read(address, size) ?? recv(fd, address, size, flags);
/** A copy to or from nowhere ends the history, and not this process. */
calls.memcpy = (target, source, size) => {
  if (target > 0 && source > 0) return memcpy(target, source, size);
  throw new RangeError(`memcpy from ${source} to ${target}`);
};
calls.readv = (fd, address, count) =>
  open.get(fd)?.readv(address, count) ?? readv(fd, address, count);
calls.writev = (fd, address, count) =>
  open.get(fd)?.writev(address, count) ?? writev(fd, address, count);
