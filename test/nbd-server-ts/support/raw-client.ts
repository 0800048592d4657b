// A client that sends the bytes it is told and says what came back, good or bad. It understands
// just enough of the protocol to know where a reply ends.

import net from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { hex, hexNumber, toHex } from './hex.ts';

/** Where a server listens. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

const PATIENCE_MS = 30_000;

/** An option reply as it came. */
export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** A reply chunk, or a simple reply dressed as one. */
export interface ReplyChunk {
  readonly form: 'simple' | 'structured' | 'extended';
  readonly flags: number;
  readonly type: number;
  readonly errno: number;
  readonly cookie: string;
  /** The request's offset that an extended reply repeats; empty otherwise. */
  readonly offset: string;
  readonly payload: Buffer;
}

export class RawClient {
  readonly #patienceMs: number;
  #stream: Duplex;
  #chunks: Buffer[] = [];
  #chunkBytes = 0;
  #isEnded = false;
  #wake: () => void = () => {};

  private constructor(stream: Duplex, patienceMs: number) {
    this.#stream = stream;
    this.#patienceMs = patienceMs;
    this.#attach();
  }

  /** @param patienceMs how long it waits for what must come. */
  static connect(address: Address, patienceMs: number = PATIENCE_MS): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ ...address, allowHalfOpen: true } as net.NetConnectOpts);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new RawClient(socket, patienceMs));
      });
    });
  }

  /** Serves tests that talk over a stream of their own. */
  static on(stream: Duplex): RawClient {
    return new RawClient(stream, PATIENCE_MS);
  }

  #attach(): void {
    this.#stream.on('data', this.#onData);
    this.#stream.on('end', this.#onEnd);
    this.#stream.on('close', this.#onEnd);
    this.#stream.on('error', () => {});
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#chunkBytes += chunk.length;
    this.#wake();
  };

  readonly #onEnd = (): void => {
    this.#isEnded = true;
    // As a real client, it closes its side when the server did.
    this.#stream.end();
    this.#wake();
  };

  /** Sends bytes, given as hex or as they are. */
  send(bytes: string | Uint8Array): void {
    if (!this.#stream.destroyed) this.#stream.write(typeof bytes === 'string' ? hex(bytes) : bytes);
  }

  /** Sends bytes and resolves when the system took them. */
  sendAll(bytes: string | Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#stream.write(typeof bytes === 'string' ? hex(bytes) : bytes, () => resolve());
    });
  }

  /** Closes the sending side only. */
  end(): void {
    this.#stream.end();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  destroy(): void {
    this.#stream.destroy();
  }

  /** Bytes received and not yet read. */
  get pendingBytes(): number {
    return this.#chunkBytes;
  }

  /** Takes the first bytes of what was received. */
  #take(count: number): Buffer {
    const all = this.#chunks.length === 1 ? this.#chunks[0] : undefined;
    const joined = all ?? Buffer.concat(this.#chunks);
    const rest = joined.subarray(count);
    this.#chunks = rest.length === 0 ? [] : [rest];
    this.#chunkBytes = rest.length;
    return Buffer.from(joined.subarray(0, count));
  }

  async #until(isTrue: () => boolean, what: string): Promise<void> {
    const deadlineMs = performance.now() + this.#patienceMs;
    while (!isTrue()) {
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) {
        const received = toHex(this.#take(this.#chunkBytes).subarray(0, 200));
        throw new Error(`${what} did not come; received: "${received}".`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Exactly `count` bytes. */
  async receive(count: number): Promise<Buffer> {
    await this.#until(() => this.#chunkBytes >= count || this.#isEnded, `${count} bytes`);
    if (this.#chunkBytes < count) {
      const got = toHex(this.#take(this.#chunkBytes));
      throw new Error(`The server closed when ${count} bytes were expected, after "${got}".`);
    }
    return this.#take(count);
  }

  /** The next `count` bytes, which stay to be received. */
  async peek(count: number): Promise<Buffer> {
    const bytes = await this.receive(count);
    this.#chunks.unshift(bytes);
    this.#chunkBytes += count;
    return bytes;
  }

  /** Resolves when the server closed, with what came before. */
  async closed(): Promise<Buffer> {
    await this.#until(() => this.#isEnded, 'The end of the connection');
    return this.#take(this.#chunkBytes);
  }

  /** Reads the greeting and sends the client flags. */
  async greet(flags = '00000003'): Promise<void> {
    await this.receive(18);
    this.send(flags);
  }

  option(number: number, data = ''): void {
    const bytes = hex(data);
    this.send(`49484156454f5054 ${hexNumber(number, 4)} ${hexNumber(bytes.length, 4)}`);
    if (bytes.length > 0) this.send(bytes);
  }

  async optionReply(): Promise<OptionReply> {
    const header = await this.receive(20);
    if (toHex(header.subarray(0, 8)) !== '0003e889045565a9') {
      throw new Error(`Not an option reply: ${toHex(header)}`);
    }
    const data = await this.receive(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** All replies to one option, up to the ACK or the error. */
  async optionReplies(): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.optionReply();
      replies.push(reply);
      if (reply.type === 1 || reply.type >= 0x80000000) return replies;
    }
  }

  /** GO for an export without asking for anything. */
  async go(exportName = ''): Promise<OptionReply[]> {
    const name = Buffer.from(exportName);
    this.option(7, `${hexNumber(name.length, 4)} ${toHex(name)} 0000`);
    return this.optionReplies();
  }

  /** A compact request. */
  request(fields: RequestFields): void {
    const { flags = 0, command, cookie = 1, offset = 0, length = 0, data } = fields;
    this.send(
      `25609513 ${hexNumber(flags, 2)} ${hexNumber(command, 2)} ${hexNumber(cookie, 8)}
       ${hexNumber(offset, 8)} ${hexNumber(length, 4)}`,
    );
    if (data !== undefined) this.send(data);
  }

  /** An extended request. */
  extendedRequest(fields: RequestFields): void {
    const { flags = 0, command, cookie = 1, offset = 0, length = 0, data } = fields;
    this.send(
      `21e41c71 ${hexNumber(flags, 2)} ${hexNumber(command, 2)} ${hexNumber(cookie, 8)}
       ${hexNumber(offset, 8)} ${hexNumber(length, 8)}`,
    );
    if (data !== undefined) this.send(data);
  }

  /** A simple reply, with `dataBytes` of data when it is a good one. */
  async simpleReply(dataBytes = 0): Promise<{ errno: number; cookie: string; data: Buffer }> {
    const chunk = await this.chunk(dataBytes);
    if (chunk.form !== 'simple') throw new Error(`A ${chunk.form} reply came, not a simple one.`);
    return { errno: chunk.errno, cookie: chunk.cookie, data: chunk.payload };
  }

  /** The next reply in whatever form it comes. */
  async chunk(simpleDataBytes = 0): Promise<ReplyChunk> {
    const magic = (await this.receive(4)).readUInt32BE(0);
    if (magic === 0x67446698) {
      const rest = await this.receive(12);
      const errno = rest.readUInt32BE(0);
      const payload = await this.receive(errno === 0 ? simpleDataBytes : 0);
      const cookie = toHex(rest.subarray(4));
      return { form: 'simple', flags: 1, type: 0, errno, cookie, offset: '', payload };
    }
    const isExtended = magic === 0x6e8a278c;
    if (!isExtended && magic !== 0x668e33ef) throw new Error(`Reply magic ${magic.toString(16)}`);
    const rest = await this.receive(isExtended ? 28 : 16);
    const length = isExtended ? Number(rest.readBigUInt64BE(20)) : rest.readUInt32BE(12);
    const payload = await this.receive(length);
    const type = rest.readUInt16BE(2);
    return {
      form: isExtended ? 'extended' : 'structured',
      flags: rest.readUInt16BE(0),
      type,
      errno: type >= 0x8000 ? payload.readUInt32BE(0) : 0,
      cookie: toHex(rest.subarray(4, 12)),
      offset: isExtended ? toHex(rest.subarray(12, 20)) : '',
      payload,
    };
  }

  /** All chunks of one reply, up to DONE. */
  async chunks(simpleDataBytes = 0): Promise<ReplyChunk[]> {
    const chunks: ReplyChunk[] = [];
    for (;;) {
      const chunk = await this.chunk(simpleDataBytes);
      chunks.push(chunk);
      if ((chunk.flags & 1) !== 0) return chunks;
    }
  }

  /** Speaks TLS from now on; rejects when the handshake fails. */
  startTls(options: tls.ConnectionOptions): Promise<void> {
    this.#stream.off('data', this.#onData);
    this.#stream.off('end', this.#onEnd);
    this.#stream.off('close', this.#onEnd);
    return new Promise((resolve, reject) => {
      const socket = tls.connect({ ...options, socket: this.#stream as net.Socket });
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('closed during the TLS handshake')));
      socket.once('secureConnect', () => {
        this.#stream = socket;
        this.#attach();
        resolve();
      });
    });
  }
}

/** The fields of a request header, all zero by default but the cookie. */
export interface RequestFields {
  readonly flags?: number;
  readonly command: number;
  readonly cookie?: number | bigint;
  readonly offset?: number | bigint;
  readonly length?: number | bigint;
  readonly data?: string | Uint8Array;
}
