/**
 * Cuts a byte stream into packets. Pure: bytes in, packets out, no I/O. It never holds more than
 * one unfinished packet (4112 bytes) besides the chunks that were pushed and not yet taken, since
 * a length over the limit is refused as soon as its header is complete, before any payload.
 */
import { XENSTORE_HEADER_SIZE } from './constants.ts';
import type { XenStoreProtocolError } from './errors.ts';
import { checkPayloadLength, type Packet } from './packet.ts';

/**
 * An incremental parser: {@link push} what arrived, then call {@link next} until it returns
 * undefined. A pushed chunk must stay unchanged until then; packets have memory of their own.
 */
export class PacketFramer {
  readonly #chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that are already taken. */
  #takenBytes = 0;
  readonly #header = new Uint8Array(XENSTORE_HEADER_SIZE);
  readonly #headerView = new DataView(this.#header.buffer);
  #headerFilledBytes = 0;
  /** Set once the header is complete and good. */
  #payload: Uint8Array | undefined;
  #payloadFilledBytes = 0;
  #breach: unknown;

  /** Adds bytes of the stream, cut anywhere. */
  push(chunk: Uint8Array): void {
    if (chunk.length > 0) this.#chunks.push(chunk);
  }

  /**
   * Takes the next whole packet, or undefined if more bytes are needed.
   * @throws XenStoreProtocolError at a header that breaks the protocol, and from then on: where the
   *   next packet would begin cannot be known. The packets before it were handed out.
   */
  next(): Packet | undefined {
    if (this.#breach !== undefined) throw this.#breach;
    const payload = this.#payload ?? this.#takeHeader();
    if (payload === undefined) return undefined;
    this.#payloadFilledBytes += this.#fill(payload, this.#payloadFilledBytes);
    if (this.#payloadFilledBytes < payload.length) return undefined;
    this.#headerFilledBytes = 0;
    this.#payloadFilledBytes = 0;
    this.#payload = undefined;
    const view = this.#headerView;
    return {
      type: view.getUint32(0, true),
      reqId: view.getUint32(4, true),
      txId: view.getUint32(8, true),
      payload,
    };
  }

  /**
   * Least number of bytes that the packet at hand still needs: the rest of the header while that is
   * unfinished, else the rest of the payload. Never 0.
   */
  get neededBytes(): number {
    const payload = this.#payload;
    if (payload === undefined) return XENSTORE_HEADER_SIZE - this.#headerFilledBytes;
    return payload.length - this.#payloadFilledBytes;
  }

  /** Whether the stream stands between two packets, where a connection may end in good order. */
  get isBetweenPackets(): boolean {
    return this.#headerFilledBytes === 0 && this.#chunks.length === 0;
  }

  /** Completes the header and makes room for its payload; undefined if bytes are missing. */
  #takeHeader(): Uint8Array | undefined {
    this.#headerFilledBytes += this.#fill(this.#header, this.#headerFilledBytes);
    if (this.#headerFilledBytes < XENSTORE_HEADER_SIZE) return undefined;
    const lengthBytes = this.#headerView.getUint32(12, true);
    try {
      checkPayloadLength(this.#headerView.getUint32(0, true), lengthBytes);
    } catch (error) {
      this.#breach = error as XenStoreProtocolError;
      this.#chunks.length = 0;
      throw error;
    }
    this.#payload = new Uint8Array(lengthBytes);
    return this.#payload;
  }

  /** Copies from the chunks into `target` from `offset` on; returns how many bytes there were. */
  #fill(target: Uint8Array, offset: number): number {
    let filled = 0;
    for (;;) {
      const chunk = this.#chunks[0];
      const wanted = target.length - offset - filled;
      if (chunk === undefined || wanted === 0) return filled;
      const available = Math.min(chunk.length - this.#takenBytes, wanted);
      target.set(chunk.subarray(this.#takenBytes, this.#takenBytes + available), offset + filled);
      filled += available;
      this.#takenBytes += available;
      if (this.#takenBytes === chunk.length) {
        this.#chunks.shift();
        this.#takenBytes = 0;
      }
    }
  }
}
