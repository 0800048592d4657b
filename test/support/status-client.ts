/**
 * A client that asks for BLOCK_STATUS in either form of headers, typed from doc/proto.md ("Metadata
 * querying", "Extended headers") and sharing no code with the server. One request at a time.
 */

import assert from 'node:assert/strict';
import type { Address } from './byte-connection.ts';
import { NbdClient } from './nbd-client.ts';
import { Cmd, Opt, Rep, requestHeader } from './nbd-wire.ts';

/** Length in bytes and status flags of an extent. */
export type ExtentPair = readonly [number, number];

function lettersOf(text: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return Buffer.concat([length, Buffer.from(text)]);
}

export class StatusClient {
  readonly #client: NbdClient;
  readonly #isExtended: boolean;
  readonly #contextId: number;
  #cookie = 0n;

  private constructor(client: NbdClient, isExtended: boolean, contextId: number) {
    this.#client = client;
    this.#isExtended = isExtended;
    this.#contextId = contextId;
  }

  /** Enters transmission with base:allocation chosen. */
  static async open(address: Address, isExtended: boolean): Promise<StatusClient> {
    const client = await NbdClient.connect(address);
    await client.greet();
    const form = isExtended ? Opt.EXTENDED_HEADERS : Opt.STRUCTURED_REPLY;
    assert.equal((await client.option(form))[0]?.type, Rep.ACK);
    const query = Buffer.concat([
      lettersOf(''),
      Buffer.from([0, 0, 0, 1]),
      lettersOf('base:allocation'),
    ]);
    const [chosen] = await client.option(Opt.SET_META_CONTEXT, query);
    assert.equal(chosen?.type, Rep.META_CONTEXT);
    await client.go('', []);
    return new StatusClient(client, isExtended, chosen.data.readUInt32BE(0));
  }

  /** The extents of a range: at least one, none empty, none beyond the range. */
  async status(offset: number, lengthBytes: number, flags = 0): Promise<ExtentPair[]> {
    this.#cookie += 1n;
    const { bytes } = this.#client;
    bytes.send(this.#header(Cmd.BLOCK_STATUS, offset, lengthBytes, flags));
    const isExtended = this.#isExtended;
    const head = await bytes.receive(isExtended ? 32 : 20);
    assert.equal(head.readUInt32BE(0), isExtended ? 0x6e8a278c : 0x668e33ef, 'magic');
    assert.equal(head.readUInt16BE(4), 1, 'one chunk, the last');
    assert.equal(head.readUInt16BE(6), isExtended ? 6 : 5, 'type of the chunk');
    assert.equal(head.readBigUInt64BE(8), this.#cookie, 'cookie');
    const size = isExtended ? Number(head.readBigUInt64BE(24)) : head.readUInt32BE(16);
    const payload = await bytes.receive(size);
    assert.equal(payload.readUInt32BE(0), this.#contextId, 'context');
    const extents = isExtended ? wideExtents(payload) : narrowExtents(payload);
    assert.ok(extents.length > 0 && extents.every(([length]) => length > 0));
    assert.ok(extents.reduce((sum, [length]) => sum + length, 0) <= lengthBytes);
    return extents;
  }

  /** Zeroes a range and returns its error number. Extended headers take any length. */
  async writeZeroes(offset: number, lengthBytes: number): Promise<number> {
    this.#cookie += 1n;
    const { bytes } = this.#client;
    bytes.send(this.#header(Cmd.WRITE_ZEROES, offset, lengthBytes, 0));
    const isExtended = this.#isExtended;
    const head = await bytes.receive(isExtended ? 32 : 16);
    if (!isExtended) return head.readUInt32BE(4);
    const payload = await bytes.receive(Number(head.readBigUInt64BE(24)));
    return payload.length === 0 ? 0 : payload.readUInt32BE(0);
  }

  close(): void {
    this.#client.bytes.destroy();
  }

  #header(type: number, offset: number, length: number, flags: number): Buffer {
    if (!this.#isExtended) return requestHeader({ type, offset, length, flags }, this.#cookie);
    const header = Buffer.alloc(32);
    header.writeUInt32BE(0x21e41c71, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(this.#cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeBigUInt64BE(BigInt(length), 24);
    return header;
  }
}

function narrowExtents(payload: Buffer): ExtentPair[] {
  assert.equal((payload.length - 4) % 8, 0);
  return Array.from({ length: (payload.length - 4) / 8 }, (_, index) => [
    payload.readUInt32BE(4 + index * 8),
    payload.readUInt32BE(8 + index * 8),
  ]);
}

function wideExtents(payload: Buffer): ExtentPair[] {
  const count = payload.readUInt32BE(4);
  assert.equal(payload.length, 8 + count * 16);
  return Array.from({ length: count }, (_, index) => [
    Number(payload.readBigUInt64BE(8 + index * 16)),
    Number(payload.readBigUInt64BE(16 + index * 16)),
  ]);
}
