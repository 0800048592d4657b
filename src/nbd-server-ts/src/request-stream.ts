// Cuts the byte stream of the transmission phase into request headers and payloads, however it was
// cut in transit. Sans-IO: chunks are pushed in, the owner asks for the next piece until there is
// not enough. One piece is being collected at a time, and never more memory than its announced
// length is in use.

import { EXTENDED_REQUEST_BYTES, REQUEST_BYTES } from './constants.ts';
import { decodeExtendedRequest, decodeRequest, type NbdRequest } from './request.ts';

const NO_BYTES = new Uint8Array(0);
/** Below this size a payload is copied out of its chunk, so that a few bytes do not pin it. */
const COPY_BELOW_BYTES = 1024;

/** What became of an attempt to read a header. */
export type HeaderOutcome = 'more' | 'request' | 'badMagic';

/** The requests of one connection as a stream. */
export class RequestStream {
  readonly #isExtended: boolean;
  readonly #headerBytes: number;
  readonly #header: Uint8Array;
  readonly #headerView: DataView;
  #headerFilledBytes = 0;
  #chunk: Uint8Array = NO_BYTES;
  #chunkView: DataView = new DataView(NO_BYTES.buffer);
  #at = 0;
  #payload: Uint8Array = NO_BYTES;
  #payloadBytes = 0;
  #payloadFilledBytes = 0;
  #drainLeftBytes = 0;

  constructor(isExtended: boolean) {
    this.#isExtended = isExtended;
    this.#headerBytes = isExtended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    this.#header = new Uint8Array(this.#headerBytes);
    this.#headerView = new DataView(this.#header.buffer);
  }

  /** True when the stream is inside a header or a payload: the client left something unfinished. */
  get isInsideRequest(): boolean {
    return (
      this.#headerFilledBytes > 0 ||
      this.#payloadBytes > this.#payloadFilledBytes ||
      this.#drainLeftBytes > 0
    );
  }

  /** Bytes pushed and not yet used. */
  get unreadBytes(): number {
    return this.#chunk.length - this.#at;
  }

  /** Adds bytes. Those pushed before have to be used up, or are joined with the new ones. */
  push(chunk: Uint8Array): void {
    if (this.unreadBytes > 0) {
      const joined = new Uint8Array(this.unreadBytes + chunk.length);
      joined.set(this.#chunk.subarray(this.#at));
      joined.set(chunk, this.unreadBytes);
      this.#chunk = joined;
    } else {
      this.#chunk = chunk;
    }
    this.#chunkView = new DataView(
      this.#chunk.buffer,
      this.#chunk.byteOffset,
      this.#chunk.byteLength,
    );
    this.#at = 0;
  }

  /** Decodes the next header into `request`. */
  readHeader(request: NbdRequest): HeaderOutcome {
    if (this.#headerFilledBytes === 0 && this.unreadBytes >= this.#headerBytes) {
      const at = this.#at;
      this.#at += this.#headerBytes;
      return this.#decode(this.#chunkView, at, request);
    }
    this.#headerFilledBytes += this.#copyInto(this.#header, this.#headerFilledBytes);
    if (this.#headerFilledBytes < this.#headerBytes) return 'more';
    this.#headerFilledBytes = 0;
    return this.#decode(this.#headerView, 0, request);
  }

  #decode(view: DataView, at: number, request: NbdRequest): HeaderOutcome {
    const isGood = this.#isExtended
      ? decodeExtendedRequest(view, at, request)
      : decodeRequest(view, at, request);
    return isGood ? 'request' : 'badMagic';
  }

  /** Announces a payload of `lengthBytes`; memory is taken when its first byte is there. */
  startPayload(lengthBytes: number): void {
    this.#payload = NO_BYTES;
    this.#payloadBytes = lengthBytes;
    this.#payloadFilledBytes = 0;
  }

  /** The whole payload, or undefined while bytes are missing. */
  readPayload(): Uint8Array | undefined {
    const lengthBytes = this.#payloadBytes;
    if (this.#payloadFilledBytes === 0 && lengthBytes >= COPY_BELOW_BYTES) {
      if (this.unreadBytes >= lengthBytes) {
        this.#payloadBytes = 0;
        this.#at += lengthBytes;
        return this.#chunk.subarray(this.#at - lengthBytes, this.#at);
      }
    }
    if (this.#payload.length === 0 && lengthBytes > 0) {
      if (this.unreadBytes === 0) return undefined;
      // Fresh memory that is handed on only when every byte of it was overwritten.
      this.#payload = Buffer.allocUnsafeSlow(lengthBytes);
    }
    this.#payloadFilledBytes += this.#copyInto(this.#payload, this.#payloadFilledBytes);
    if (this.#payloadFilledBytes < lengthBytes) return undefined;
    const payload = this.#payload;
    this.startPayload(0);
    return payload;
  }

  /** Announces `lengthBytes` that nobody wants. */
  startDrain(lengthBytes: number): void {
    this.#drainLeftBytes = lengthBytes;
  }

  /** Throws away what is there; true when all of it was. */
  readDrain(): boolean {
    const takenBytes = Math.min(this.unreadBytes, this.#drainLeftBytes);
    this.#at += takenBytes;
    this.#drainLeftBytes -= takenBytes;
    return this.#drainLeftBytes === 0;
  }

  /** Forgets everything, so that its memory is free while the connection ends. */
  discard(): void {
    this.#chunk = NO_BYTES;
    this.#at = 0;
    this.#headerFilledBytes = 0;
    this.startPayload(0);
    this.#drainLeftBytes = 0;
  }

  #copyInto(target: Uint8Array, filledBytes: number): number {
    const takenBytes = Math.min(this.unreadBytes, target.length - filledBytes);
    target.set(this.#chunk.subarray(this.#at, this.#at + takenBytes), filledBytes);
    this.#at += takenBytes;
    return takenBytes;
  }
}
