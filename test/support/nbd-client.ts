// A small NBD client for tests, written from the protocol document alone and sharing no code with
// the server under test, so that an error both ends would make shows. It sends what it is told,
// including what no client should, and checks each field that comes back.
//
// Sections are those of doc/proto.md of the NBD project. Offsets are bytes, integers big-endian.
import assert from 'node:assert/strict';
import { createConnection, type Socket } from 'node:net';

/** Options a client may haggle with ("Option types"). */
export const Opt = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Option reply types; errors have the top bit set ("Option reply types"). */
export const Rep = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_PLATFORM: 0x80000004,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_BLOCK_SIZE_REQD: 0x80000008,
  ERR_TOO_BIG: 0x80000009,
} as const;

/** Kinds of information in a reply to INFO and GO. */
export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Request types. */
export const Cmd = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

/** Command flags. */
export const CmdFlag = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

/** Transmission flags. */
export const Flag = {
  HAS_FLAGS: 0x0001,
  READ_ONLY: 0x0002,
  SEND_FLUSH: 0x0004,
  SEND_FUA: 0x0008,
  ROTATIONAL: 0x0010,
  SEND_TRIM: 0x0020,
  SEND_WRITE_ZEROES: 0x0040,
  SEND_DF: 0x0080,
  CAN_MULTI_CONN: 0x0100,
  SEND_CACHE: 0x0400,
  SEND_FAST_ZERO: 0x0800,
} as const;

/** Error values. */
export const Errno = {
  OK: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Longer than any server under test may take, and short enough for a test to end. */
const REPLY_TIMEOUT_MS = 20_000;

/** Where a server listens. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

export interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

/** What INFO and GO say of an export. */
export interface ExportDescription {
  readonly sizeBytes: bigint;
  readonly flags: number;
  readonly name: string | undefined;
  readonly description: string | undefined;
  readonly blockSize:
    | { readonly minimum: number; readonly preferred: number; readonly maximum: number }
    | undefined;
}

/** A request as it goes out; what is left out is 0. */
export interface Request {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  readonly length?: number;
  /** Follows the header. Its length is the request's length unless that is given. */
  readonly payload?: Buffer;
}

/** One simple reply. */
export interface Reply {
  readonly error: number;
  /** What a READ without error brought. */
  readonly data: Buffer;
}

interface Waiting {
  readonly length: number;
  readonly resolve: (bytes: Buffer | undefined) => void;
}

interface InFlight {
  readonly readLength: number;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

/** The connection ended, by the server or by an error, while something was expected of it. */
export class ConnectionEnded extends Error {
  override readonly name = 'ConnectionEnded';
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Data of INFO and GO: name length, name, number of information requests, requests. */
export function goData(exportName: string, infos: readonly number[]): Buffer {
  const name = Buffer.from(exportName);
  return Buffer.concat([u32(name.length), name, u16(infos.length), ...infos.map(u16)]);
}

/** The 28 bytes of a request ("Request message"). */
export function requestHeader(request: Request, cookie: bigint): Buffer {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(0x25609513, 0);
  header.writeUInt16BE(request.flags ?? 0, 4);
  header.writeUInt16BE(request.type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeBigUInt64BE(BigInt(request.offset ?? 0), 16);
  header.writeUInt32BE(request.length ?? request.payload?.length ?? 0, 24);
  return header;
}

/** One connection. First the raw bytes, then the handshake, then requests in any number. */
export class NbdClient {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #waiting: Waiting | undefined;
  #ended = false;
  #error: Error | undefined;
  readonly #onEnd: Promise<void>;
  readonly #inFlight = new Map<bigint, InFlight>();
  #nextCookie = 0x0123456789abcdefn;
  #hasNoZeroes = false;
  #isReceiving = false;
  /** Why no reply can come any more. */
  #failure: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#buffered += chunk.length;
      this.#deliver();
    });
    this.#onEnd = new Promise((resolve) => {
      const end = (): void => {
        this.#ended = true;
        this.#deliver();
        resolve();
      };
      socket.on('end', end);
      socket.on('close', end);
      socket.on('error', (error) => {
        this.#error = error;
        end();
      });
    });
  }

  /** Opens the connection and sends nothing. */
  static connect(address: Address): Promise<NbdClient> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ ...address, allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new NbdClient(socket));
      });
    });
  }

  /** Connects, greets and enters transmission on one export. */
  static async open(
    address: Address,
    exportName = '',
  ): Promise<{ client: NbdClient; description: ExportDescription }> {
    const client = await NbdClient.connect(address);
    await client.greet();
    return { client, description: await client.go(exportName) };
  }

  // --- Raw bytes ------------------------------------------------------------------------------

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /**
   * The next `length` bytes from the server.
   *
   * @throws ConnectionEnded when it closes before; Error when it stays silent.
   */
  async receive(length: number): Promise<Buffer> {
    const bytes = await this.#receiveOrEnd(length);
    if (!bytes) {
      const cause = this.#error;
      throw new ConnectionEnded(
        `the server closed the connection; ${length} bytes were expected, ${this.#buffered} came`,
        { cause },
      );
    }
    return bytes;
  }

  /**
   * Waits until the server has closed the connection, throwing away what it still sends.
   *
   * @throws Error when it keeps the connection open for longer than `timeoutMs`.
   */
  async receiveEnd(timeoutMs: number = REPLY_TIMEOUT_MS): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`the server did not close the connection within ${timeoutMs} ms`));
      }, timeoutMs);
    });
    await Promise.race([this.#onEnd, late]).finally(() => clearTimeout(timer));
  }

  /** Half-closes: the server sees the end of our bytes, and can still answer. */
  endSending(): void {
    this.#socket.end();
  }

  /** Drops the connection on the spot. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Stops reading from the socket, as a slow client does, until {@link resume}. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  // --- Handshake ------------------------------------------------------------------------------

  /** Reads the server's greeting and answers with client flags. Returns the handshake flags. */
  async greet(clientFlags = 3): Promise<number> {
    const greeting = await this.receive(18);
    assert.equal(greeting.subarray(0, 16).toString('latin1'), 'NBDMAGICIHAVEOPT', 'greeting');
    this.#hasNoZeroes = (clientFlags & 2) !== 0;
    this.send(u32(clientFlags));
    return greeting.readUInt16BE(16);
  }

  sendOption(
    option: number,
    data: Buffer = Buffer.alloc(0),
    announcedLength: number = data.length,
  ): void {
    this.send(
      Buffer.concat([Buffer.from('IHAVEOPT', 'latin1'), u32(option), u32(announcedLength), data]),
    );
  }

  async receiveOptionReply(option: number): Promise<OptionReply> {
    const header = await this.receive(20);
    assert.equal(header.readBigUInt64BE(0), 0x3e889045565a9n, 'magic of an option reply');
    assert.equal(header.readUInt32BE(8), option, 'the option that a reply answers');
    const data = await this.receive(header.readUInt32BE(16));
    return { type: header.readUInt32BE(12), data };
  }

  /** Sends an option and collects its replies, up to and with the ACK or the error. */
  async option(option: number, data: Buffer = Buffer.alloc(0)): Promise<OptionReply[]> {
    this.sendOption(option, data);
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.receiveOptionReply(option);
      replies.push(reply);
      if (reply.type === Rep.ACK || reply.type >= 0x80000000) return replies;
    }
  }

  /** Names of the exports the server lists. */
  async list(): Promise<string[]> {
    const replies = await this.option(Opt.LIST);
    const last = replies.pop();
    assert.equal(last?.type, Rep.ACK, 'LIST is answered');
    return replies.map((reply) => {
      assert.equal(reply.type, Rep.SERVER, 'a reply to LIST');
      const length = reply.data.readUInt32BE(0);
      return reply.data.subarray(4, 4 + length).toString();
    });
  }

  /** INFO: asks about an export and stays in the handshake. */
  info(exportName = '', infos: readonly number[] = [1, 2, 3]): Promise<ExportDescription> {
    return this.#describe(Opt.INFO, exportName, infos);
  }

  /** GO: enters transmission. */
  go(exportName = '', infos: readonly number[] = [1, 2, 3]): Promise<ExportDescription> {
    return this.#describe(Opt.GO, exportName, infos);
  }

  /** EXPORT_NAME, the old way into transmission. */
  async exportName(name = ''): Promise<ExportDescription> {
    this.sendOption(Opt.EXPORT_NAME, Buffer.from(name));
    const reply = await this.receive(this.#hasNoZeroes ? 10 : 134);
    return {
      sizeBytes: reply.readBigUInt64BE(0),
      flags: reply.readUInt16BE(8),
      name: undefined,
      description: undefined,
      blockSize: undefined,
    };
  }

  async #describe(
    option: number,
    exportName: string,
    infos: readonly number[],
  ): Promise<ExportDescription> {
    const replies = await this.option(option, goData(exportName, infos));
    const last = replies.pop();
    if (last?.type !== Rep.ACK) {
      const type = last?.type.toString(16);
      throw new Error(`option ${option} was refused with 0x${type}: ${last?.data.toString()}`);
    }
    const byKind = new Map<number, Buffer>();
    for (const reply of replies) {
      assert.equal(reply.type, Rep.INFO, 'a reply to INFO or GO');
      const kind = reply.data.readUInt16BE(0);
      assert.ok(!byKind.has(kind), `information ${kind} comes once`);
      byKind.set(kind, reply.data.subarray(2));
    }
    const facts = byKind.get(Info.EXPORT);
    assert.ok(facts?.length === 10, 'INFO_EXPORT holds a size and flags');
    const blockSize = byKind.get(Info.BLOCK_SIZE);
    return {
      sizeBytes: facts.readBigUInt64BE(0),
      flags: facts.readUInt16BE(8),
      name: byKind.get(Info.NAME)?.toString(),
      description: byKind.get(Info.DESCRIPTION)?.toString(),
      blockSize: blockSize && {
        minimum: blockSize.readUInt32BE(0),
        preferred: blockSize.readUInt32BE(4),
        maximum: blockSize.readUInt32BE(8),
      },
    };
  }

  // --- Transmission ---------------------------------------------------------------------------

  /**
   * Sends a request and resolves with its reply. Many may be in flight, and replies come in any
   * order.
   *
   * @throws ConnectionEnded when the connection ends before the reply.
   */
  request(request: Request): Promise<Reply> {
    if (this.#failure) return Promise.reject(this.#failure);
    const cookie = this.#nextCookie++;
    const readLength = request.type === Cmd.READ ? (request.length ?? 0) : 0;
    const reply = new Promise<Reply>((resolve, reject) => {
      this.#inFlight.set(cookie, { readLength, resolve, reject });
    });
    const header = requestHeader(request, cookie);
    this.send(request.payload ? Buffer.concat([header, request.payload]) : header);
    if (!this.#isReceiving) {
      this.#isReceiving = true;
      void this.#receiveReplies();
    }
    return reply;
  }

  read(offset: number | bigint, length: number, flags = 0): Promise<Reply> {
    return this.request({ type: Cmd.READ, offset, length, flags });
  }

  write(offset: number | bigint, payload: Buffer, flags = 0): Promise<Reply> {
    return this.request({ type: Cmd.WRITE, offset, payload, flags });
  }

  flush(): Promise<Reply> {
    return this.request({ type: Cmd.FLUSH });
  }

  trim(offset: number | bigint, length: number, flags = 0): Promise<Reply> {
    return this.request({ type: Cmd.TRIM, offset, length, flags });
  }

  writeZeroes(offset: number | bigint, length: number, flags = 0): Promise<Reply> {
    return this.request({ type: Cmd.WRITE_ZEROES, offset, length, flags });
  }

  /** Reads that must succeed. */
  async readOk(offset: number | bigint, length: number): Promise<Buffer> {
    const reply = await this.read(offset, length);
    assert.equal(reply.error, Errno.OK, `read of ${length} bytes at ${offset}`);
    return reply.data;
  }

  /** Says goodbye and waits for the server to close. */
  async disconnect(): Promise<void> {
    this.send(requestHeader({ type: Cmd.DISC }, 0n));
    this.endSending();
    await this.receiveEnd();
    this.destroy();
  }

  /** Runs from the first request to the end of the connection. */
  async #receiveReplies(): Promise<void> {
    let failure: Error = new ConnectionEnded('the connection ended before the reply');
    try {
      while (await this.#receiveReply()) {
        // Each call hands one reply to its request.
      }
      if (this.#error) failure = new ConnectionEnded(failure.message, { cause: this.#error });
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      this.destroy();
    }
    this.#failure = failure;
    for (const waiting of this.#inFlight.values()) waiting.reject(failure);
    this.#inFlight.clear();
  }

  /** False at the end of the connection. */
  async #receiveReply(): Promise<boolean> {
    const header = await this.#receiveOrEnd(16, Number.POSITIVE_INFINITY);
    if (!header) {
      assert.equal(this.#buffered, 0, 'the connection ended within a reply');
      return false;
    }
    assert.equal(header.readUInt32BE(0), 0x67446698, 'magic of a simple reply');
    const error = header.readUInt32BE(4);
    const cookie = header.readBigUInt64BE(8);
    const request = this.#inFlight.get(cookie);
    assert.ok(request, `reply to cookie ${cookie.toString(16)}, which is not in flight`);
    const data = await this.receive(error === 0 ? request.readLength : 0);
    this.#inFlight.delete(cookie);
    request.resolve({ error, data });
    return true;
  }

  #receiveOrEnd(length: number, timeoutMs = REPLY_TIMEOUT_MS): Promise<Buffer | undefined> {
    assert.ok(!this.#waiting, 'one reader at a time');
    return new Promise((resolve, reject) => {
      const timer =
        timeoutMs === Number.POSITIVE_INFINITY
          ? undefined
          : setTimeout(() => {
              this.#waiting = undefined;
              reject(new Error(`the server sent less than ${length} bytes in ${timeoutMs} ms`));
            }, timeoutMs);
      this.#waiting = {
        length,
        resolve: (bytes) => {
          clearTimeout(timer);
          resolve(bytes);
        },
      };
      this.#deliver();
    });
  }

  /** Hands the reader its bytes once they are all here, or the news that they never will be. */
  #deliver(): void {
    const waiting = this.#waiting;
    if (!waiting) return;
    if (this.#buffered >= waiting.length) {
      const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      const bytes = all ?? Buffer.alloc(0);
      const rest = bytes.subarray(waiting.length);
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#buffered = rest.length;
      this.#waiting = undefined;
      waiting.resolve(bytes.subarray(0, waiting.length));
    } else if (this.#ended) {
      this.#waiting = undefined;
      waiting.resolve(undefined);
    }
  }
}
