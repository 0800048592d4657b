// Many clients at once, clients that die, and a server that is stopped under load.
import assert from 'node:assert/strict';
import { ConnectionEnded } from '../support/byte-connection.ts';
import { Daemon } from '../support/daemon.ts';
import {
  assertSameBytes,
  createSparseImage,
  randomBytes,
  readFileRange,
} from '../support/disk-image.ts';
import { eventually } from '../support/eventually.ts';
import { idleDescriptors } from '../support/idle-descriptors.ts';
import { NbdClient, type Reply } from '../support/nbd-client.ts';
import { Errno } from '../support/nbd-wire.ts';
import { countDescriptors, readCpuTime, readResidentMemory } from '../support/proc-stat.ts';
import { BackgroundProgram, findProgram, mustRun, words } from '../support/program.ts';
import { SeededRandom } from '../support/random.ts';
import type { CaseContext, InteropCase } from './runner.ts';

const MIB = 1024 * 1024;

/** Two clients own every other piece of the disk; the pieces end within sectors. */
async function fightOverSectors(context: CaseContext): Promise<void> {
  const sizeBytes = 64 * 1024;
  const pieceBytes = 301;
  const image = context.image(sizeBytes);
  const model = randomBytes(context.options.seed, sizeBytes);
  await context.serve(image);
  const random = new SeededRandom(context.options.seed);
  const pieceCount = Math.floor(sizeBytes / pieceBytes);

  /** Writes parts of this client's own pieces, eight at a time, never two to one piece at once. */
  const fight = async (parity: number): Promise<void> => {
    const { client } = await NbdClient.open({ path: context.path('nbd0.sock') });
    for (let round = 0; round < 150; round++) {
      const first = random.below(pieceCount - 16);
      const replies: Promise<Reply>[] = [];
      for (let i = 0; i < 8; i++) {
        const piece = first - (first % 2) + parity + 2 * i;
        const skip = random.below(pieceBytes - 1);
        const bytes = random.bytes(1 + random.below(pieceBytes - skip));
        const offset = piece * pieceBytes + skip;
        bytes.copy(model, offset);
        replies.push(client.write(offset, bytes));
      }
      for (const reply of await Promise.all(replies)) assert.equal(reply.error, Errno.OK);
    }
    await client.disconnect();
  };
  await Promise.all([fight(0), fight(1)]);
  const what = `seed ${context.options.seed}: the file behind the export`;
  assertSameBytes(readFileRange(image, 0, sizeBytes), model, what);
}

/** Writes and checks its own region of the disk, until it is stopped. */
class Bystander {
  readonly #client: NbdClient;
  readonly #work: Promise<void>;
  #isStopping = false;
  rounds = 0;

  private constructor(client: NbdClient, firstByte: number, seed: number) {
    this.#client = client;
    this.#work = this.#run(firstByte, new SeededRandom(seed));
    // Reported by stop(); until then it is not unhandled.
    this.#work.catch(() => {});
  }

  static async start(path: string, firstByte: number, seed: number): Promise<Bystander> {
    const { client } = await NbdClient.open({ path });
    return new Bystander(client, firstByte, seed);
  }

  async #run(firstByte: number, random: SeededRandom): Promise<void> {
    while (!this.#isStopping) {
      const bytes = random.bytes(5000);
      const offset = firstByte + random.below(MIB - bytes.length);
      assert.equal((await this.#client.write(offset, bytes)).error, Errno.OK, 'bystander write');
      assertSameBytes(await this.#client.readOk(offset, bytes.length), bytes, 'bystander read');
      this.rounds++;
    }
  }

  /** @throws whatever went wrong for the bystander since the start. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#work;
    await this.#client.disconnect();
  }
}

async function killBusyClients(context: CaseContext): Promise<void> {
  const image = context.path('disk.raw');
  createSparseImage(image, 256 * MIB);
  const server = await context.serve(image);
  const socket = context.path('nbd0.sock');
  await idleDescriptors(server.pid, { path: socket });
  const bystander = await Bystander.start(socket, 255 * MIB, context.options.seed);
  const before = countDescriptors(server.pid);
  for (const [index, mode] of (['randread', 'randwrite', 'randrw'] as const).entries()) {
    const victim = new BackgroundProgram(findProgram('fio') ?? 'fio', [
      '--name=victim',
      '--ioengine=nbd',
      `--uri=${server.uri}`,
      `--rw=${mode}`,
      ...words('--bs=64k --iodepth=64 --numjobs=4 --thread --size=255M'),
      ...words('--time_based --runtime=60'),
    ]);
    const idleMs = readCpuTime(server.pid, '').totalMs;
    await eventually('the victim is connected', 15_000, () =>
      countDescriptors(server.pid) >= before + 4 ? true : undefined,
    );
    await eventually('the victim is busy', 15_000, () =>
      readCpuTime(server.pid, '').totalMs > idleMs + 100 ? true : undefined,
    );
    const { rounds } = bystander;
    victim.kill('SIGKILL');
    await victim.waitForEnd(5_000);
    await eventually(`connections of victim ${index} are closed`, 15_000, () =>
      countDescriptors(server.pid) <= before ? true : undefined,
    );
    await eventually('the bystander goes on', 15_000, () =>
      bystander.rounds > rounds + 5 ? true : undefined,
    );
  }
  await bystander.stop();
  assert.equal(server.endedHow, undefined, 'the server');
}

/** Sixteen connections at random places of a disk of 1 TiB, up to its last byte. */
async function terabyteDisk(context: CaseContext): Promise<void> {
  const sizeBytes = 2 ** 40;
  const connectionCount = 16;
  const image = context.path('disk.raw');
  createSparseImage(image, sizeBytes);
  const server = await context.serve(image);
  const seconds = context.options.isQuick ? 2 : 10;
  const work = async (index: number): Promise<void> => {
    const random = new SeededRandom(context.options.seed + index);
    const { client, description } = await NbdClient.open({ path: context.path('nbd0.sock') });
    assert.equal(description.sizeBytes, BigInt(sizeBytes));
    // Each connection owns a sixteenth, so that what it wrote stays.
    const ownBytes = sizeBytes / connectionCount;
    for (let round = 0; round < 4; round++) {
      const writes = Array.from({ length: 16 }, (_, i) => {
        const bytes = random.bytes(1 + random.below(20_000));
        const isLast = i === 15;
        const within = isLast ? ownBytes - bytes.length : random.below(ownBytes - bytes.length);
        return { offset: index * ownBytes + within, bytes };
      });
      const replies = writes.map(({ offset, bytes }) => client.write(offset, bytes));
      for (const reply of await Promise.all(replies)) assert.equal(reply.error, Errno.OK);
      for (const { offset, bytes } of writes) {
        assertSameBytes(await client.readOk(offset, bytes.length), bytes, `at ${offset}`);
      }
    }
    await client.disconnect();
  };
  await Promise.all(Array.from({ length: connectionCount }, (_, index) => work(index)));
  await mustRun('fio', [
    '--name=read',
    '--ioengine=nbd',
    `--uri=${server.uri}`,
    '--rw=randread',
    '--bsrange=4k-1M',
    '--iodepth=16',
    `--numjobs=${connectionCount}`,
    '--thread',
    '--size=1T',
    '--norandommap',
    '--time_based',
    `--runtime=${seconds}`,
  ]);
  const { peakBytes } = readResidentMemory(server.pid);
  const limitBytes = 200 * MIB;
  const text = `${(peakBytes / MIB).toFixed(0)} MiB at the most`;
  assert.ok(peakBytes < limitBytes, `the server had ${text}; the limit is 200 MiB`);
}

/** The bytes of the n-th write to a block: recognisable as a whole. */
function numberedBlock(number: number): Buffer {
  const block = Buffer.alloc(4096);
  for (let i = 0; i < block.length; i += 4) block.writeUInt32BE(number, i);
  return block;
}

async function stopUnderLoad(context: CaseContext): Promise<void> {
  const blockCount = 64;
  const clientCount = 4;
  const image = context.path('disk.raw');
  const socket = context.path('stopped.sock');
  createSparseImage(image, blockCount * 4096);
  const daemon = await Daemon.start(['--simulate', image, '--unix', socket]);
  /** For each block the number of the last write sent, and of the last one acknowledged. */
  const sent = new Uint32Array(blockCount);
  const acknowledged = new Uint32Array(blockCount);
  let total = 0;
  let onEnough = (): void => {};
  const enough = new Promise<void>((resolve) => {
    onEnough = resolve;
  });

  /** Writes one block over and over. Returns why it ended. */
  const writeBlock = async (client: NbdClient, block: number): Promise<string> => {
    for (;;) {
      const number = (sent[block] ?? 0) + 1;
      sent[block] = number;
      try {
        const { error } = await client.write(block * 4096, numberedBlock(number));
        if (error === Errno.ESHUTDOWN) return 'ESHUTDOWN';
        assert.equal(error, Errno.OK, 'a write under load');
      } catch (error) {
        if (error instanceof ConnectionEnded) return 'closed';
        throw error;
      }
      acknowledged[block] = number;
      if (++total === 2000) onEnough();
    }
  };
  const work = async (index: number): Promise<void> => {
    const { client } = await NbdClient.open({ path: socket });
    const own = Array.from({ length: 16 }, (_, i) => writeBlock(client, index * 16 + i));
    await Promise.all(own);
    client.bytes.destroy();
  };
  const all = Promise.all(Array.from({ length: clientCount }, (_, index) => work(index)));
  await Promise.race([enough, all]);
  await daemon.stop();
  await all;
  for (let block = 0; block < blockCount; block++) {
    const bytes = readFileRange(image, block * 4096, 4096);
    const found = bytes.readUInt32BE(0);
    assertSameBytes(bytes, numberedBlock(found), `block ${block} is one whole write`);
    const least = acknowledged[block] ?? 0;
    const most = sent[block] ?? 0;
    assert.ok(
      found >= least && found <= most,
      `block ${block} holds write ${found}; ${least} was acknowledged, ${most} was the last sent`,
    );
  }
}

export const loadCases: readonly InteropCase[] = [
  {
    name: 'two clients write odd ranges of the same sectors at once, and no update is lost',
    run: fightOverSectors,
  },
  {
    name: '16 connections to a sparse disk of 1 TiB, in less than 200 MiB of memory',
    needs: ['fio'],
    isOurs: true,
    timeoutMs: 120_000,
    run: terabyteDisk,
  },
  {
    name: 'kill -9 of busy clients: others go on, no descriptor is left',
    needs: ['fio'],
    run: killBusyClients,
  },
  {
    name: 'SIGTERM under load: every write is acknowledged once or not at all, exit code 0',
    isOurs: true,
    run: stopUnderLoad,
  },
];
