// A small NBD client for tests, written from the protocol document alone and sharing no code with
// the server under test, so that an error both ends would make shows. It sends what it is told,
// including what no client should, and checks each field that comes back.
//
// Sections are those of doc/proto.md of the NBD project. Offsets are bytes, integers big-endian.
import assert from 'node:assert/strict';
import { type Address, ByteConnection, ConnectionEnded } from './byte-connection.ts';
import {
  Cmd,
  Errno,
  goData,
  Info,
  Opt,
  Rep,
  type Request,
  requestHeader,
  u32,
} from './nbd-wire.ts';

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

/** One simple reply. */
export interface Reply {
  readonly error: number;
  /** What a READ without error brought. */
  readonly data: Buffer;
}

interface InFlight {
  readonly readLength: number;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

/** One connection. First the raw bytes, then the handshake, then requests in any number. */
export class NbdClient {
  /** For everything that is not a well-formed conversation. */
  readonly bytes: ByteConnection;
  readonly #inFlight = new Map<bigint, InFlight>();
  #nextCookie = 0x0123456789abcdefn;
  #hasNoZeroes = false;
  #isReceiving = false;
  /** Why no reply can come any more. */
  #failure: Error | undefined;

  private constructor(bytes: ByteConnection) {
    this.bytes = bytes;
  }

  /** Opens the connection and sends nothing. */
  static async connect(address: Address): Promise<NbdClient> {
    return new NbdClient(await ByteConnection.open(address));
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

  /** Reads the server's greeting and answers with client flags. Returns the handshake flags. */
  async greet(clientFlags = 3): Promise<number> {
    const greeting = await this.bytes.receive(18);
    assert.equal(greeting.subarray(0, 16).toString('latin1'), 'NBDMAGICIHAVEOPT', 'greeting');
    this.#hasNoZeroes = (clientFlags & 2) !== 0;
    this.bytes.send(u32(clientFlags));
    return greeting.readUInt16BE(16);
  }

  sendOption(
    option: number,
    data: Buffer = Buffer.alloc(0),
    announcedLength: number = data.length,
  ): void {
    this.bytes.send(
      Buffer.concat([Buffer.from('IHAVEOPT', 'latin1'), u32(option), u32(announcedLength), data]),
    );
  }

  async receiveOptionReply(option: number): Promise<OptionReply> {
    const header = await this.bytes.receive(20);
    assert.equal(header.readBigUInt64BE(0), 0x3e889045565a9n, 'magic of an option reply');
    assert.equal(header.readUInt32BE(8), option, 'the option that a reply answers');
    const data = await this.bytes.receive(header.readUInt32BE(16));
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
    const reply = await this.bytes.receive(this.#hasNoZeroes ? 10 : 134);
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
    this.bytes.send(request.payload ? Buffer.concat([header, request.payload]) : header);
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
    this.bytes.send(requestHeader({ type: Cmd.DISC }, 0n));
    this.bytes.endSending();
    await this.bytes.receiveEnd();
    this.bytes.destroy();
  }

  /** Runs from the first request to the end of the connection. */
  async #receiveReplies(): Promise<void> {
    let failure: Error = new ConnectionEnded('the connection ended before the reply');
    try {
      while (await this.#receiveReply()) {
        // Each call hands one reply to its request.
      }
      if (this.bytes.error)
        failure = new ConnectionEnded(failure.message, { cause: this.bytes.error });
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      this.bytes.destroy();
    }
    this.#failure = failure;
    for (const waiting of this.#inFlight.values()) waiting.reject(failure);
    this.#inFlight.clear();
  }

  /** False at the end of the connection. */
  async #receiveReply(): Promise<boolean> {
    const header = await this.bytes.receiveOrEnd(16, Number.POSITIVE_INFINITY);
    if (!header) {
      assert.equal(this.bytes.bufferedBytes, 0, 'the connection ended within a reply');
      return false;
    }
    assert.equal(header.readUInt32BE(0), 0x67446698, 'magic of a simple reply');
    const error = header.readUInt32BE(4);
    const cookie = header.readBigUInt64BE(8);
    const request = this.#inFlight.get(cookie);
    assert.ok(request, `reply to cookie ${cookie.toString(16)}, which is not in flight`);
    const data = await this.bytes.receive(error === 0 ? request.readLength : 0);
    this.#inFlight.delete(cookie);
    request.resolve({ error, data });
    return true;
  }
}
