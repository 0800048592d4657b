// Goal: large reads come in chunks to clients that have agreed on chunks and want no single one
// (doc/proto.md, "Structured replies", NBD_CMD_FLAG_DF), and in one piece to all others.
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { runXenblkNbd } from '../support/daemon.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, CmdFlag, Opt, Rep, requestHeader } from '../support/nbd-wire.ts';
import { MIB, type ServedFile, serveFile } from '../support/served-file.ts';

const GIB = 1024 * MIB;
/** Beyond what 32 bits can say. */
const OFFSET = 5 * GIB + 4096 + 512;
const LENGTH = 2 * MIB;

interface Chunk {
  readonly cookie: bigint;
  readonly flags: number;
  readonly type: number;
  readonly payload: Buffer;
}

async function receiveChunk({ bytes }: NbdClient): Promise<Chunk> {
  const header = await bytes.receive(20);
  if (header.readUInt32BE(0) !== 0x668e33ef) throw new Error('no structured reply');
  return {
    cookie: header.readBigUInt64BE(8),
    flags: header.readUInt16BE(4),
    type: header.readUInt16BE(6),
    payload: await bytes.receive(header.readUInt32BE(16)),
  };
}

/** The chunks of a reply, up to the one that says it is the last. */
async function receiveReplies(client: NbdClient, count: number): Promise<Map<bigint, Chunk[]>> {
  const replies = new Map<bigint, Chunk[]>();
  for (let done = 0; done < count; ) {
    const chunk = await receiveChunk(client);
    const chunks = replies.get(chunk.cookie) ?? [];
    replies.set(chunk.cookie, [...chunks, chunk]);
    if (chunk.flags === 1) done += 1;
  }
  return replies;
}

async function openStructured(address: ServedFile['address']): Promise<NbdClient> {
  const client = await NbdClient.connect(address);
  await client.greet();
  const [reply] = await client.option(Opt.STRUCTURED_REPLY);
  if (reply?.type !== Rep.ACK) throw new Error('structured replies were refused');
  await client.go();
  return client;
}

async function serveLargeFile(t: Parameters<typeof serveFile>[0], args: readonly string[] = []) {
  const content = Buffer.alloc(LENGTH);
  for (let at = 0; at < LENGTH; at += 4) content.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  const served = await serveFile(t, 0, args, (file) => {
    const fd = openSync(file, 'r+');
    ftruncateSync(fd, 6 * GIB);
    writeSync(fd, content, 0, LENGTH, OFFSET);
    closeSync(fd);
  });
  return { ...served, content };
}

function ask(client: NbdClient, cookie: bigint, flags = 0): void {
  client.bytes.send(
    requestHeader({ type: Cmd.READ, offset: BigInt(OFFSET), length: LENGTH, flags }, cookie),
  );
}

void t.test('in chunks, in order, at the offsets they name', async (t) => {
  const { daemon, address, content } = await serveLargeFile(t);
  const client = await openStructured(address);
  ask(client, 1n);
  ask(client, 2n);
  for (const [cookie, chunks] of await receiveReplies(client, 2)) {
    t.ok(chunks.length > 1, `${chunks.length} chunks for ${cookie}`);
    let at = BigInt(OFFSET);
    for (const { type, flags, payload } of chunks) {
      if (payload.length > 256 * 1024 + 8) t.fail(`a chunk of ${payload.length} bytes`);
      if (type !== 1) t.fail(`a chunk of type ${type}`);
      if (payload.readBigUInt64BE(0) !== at) t.fail(`a chunk at ${payload.readBigUInt64BE(0)}`);
      at += BigInt(payload.length - 8);
      if (flags !== (at === BigInt(OFFSET + LENGTH) ? 1 : 0)) t.fail(`flags ${flags} at ${at}`);
    }
    const data = Buffer.concat(chunks.map(({ payload }) => payload.subarray(8)));
    t.ok(data.equals(content), 'the bytes of the disk');
  }
  await client.disconnect();
  await daemon.stop();
});

void t.test('in one, where the client said so', async (t) => {
  const { daemon, address, content } = await serveLargeFile(t);
  const client = await openStructured(address);
  ask(client, 1n, CmdFlag.DF);
  ask(client, 2n, CmdFlag.DF);
  for (const chunks of (await receiveReplies(client, 2)).values()) {
    t.equal(chunks.length, 1);
    t.ok(chunks[0]?.payload.subarray(8).equals(content));
  }
  await client.disconnect();
  const { client: simple } = await NbdClient.open(address);
  const replies = await Promise.all([simple.readOk(OFFSET, LENGTH), simple.readOk(OFFSET, LENGTH)]);
  for (const data of replies) t.ok(data.equals(content), 'a simple reply has no chunks');
  await simple.disconnect();
  await daemon.stop();
});

void t.test('in one, where the client asks one thing at a time', async (t) => {
  const { daemon, address, content } = await serveLargeFile(t);
  const client = await openStructured(address);
  const bytes = MIB / 2;
  for (let round = 1n; round <= 4n; round++) {
    client.bytes.send(
      requestHeader({ type: Cmd.READ, offset: BigInt(OFFSET), length: bytes }, round),
    );
    const chunks = (await receiveReplies(client, 1)).get(round) ?? [];
    const data = Buffer.concat(chunks.map(({ payload }) => payload.subarray(8)));
    t.ok(data.equals(content.subarray(0, bytes)));
    // Whether it does is known from the second on.
    if (round > 1n) t.equal(chunks.length, 1, `read ${round}`);
  }
  await client.disconnect();
  await daemon.stop();
});

void t.test('the trace has the read as it was asked', async (t) => {
  const trace = join(mkdtempSync(join(tmpdir(), 'xenblk-nbd-test-')), 'trace');
  t.teardown(() => rmSync(dirname(trace), { recursive: true }));
  const { daemon, address } = await serveLargeFile(t, ['--trace', trace]);
  const client = await openStructured(address);
  ask(client, 1n);
  ask(client, 2n);
  await receiveReplies(client, 2);
  await client.disconnect();
  await daemon.stop();
  const { stdout } = await runXenblkNbd(['trace', trace, '--json']);
  const records = stdout.trim().split('\n');
  t.equal(records.length, 2);
  for (const record of records) {
    t.match(JSON.parse(record), { offset: OFFSET, lengthBytes: LENGTH, errno: 0 });
  }
});
