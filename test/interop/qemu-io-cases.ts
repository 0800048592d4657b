// qemu-io: patterns at any alignment, zeroes, discards and flushes. A model in memory says what
// the disk must hold afterwards.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { assertSameBytes, readFileRange } from '../support/disk-image.ts';
import { mustRun } from '../support/program.ts';
import { SeededRandom } from '../support/random.ts';
import type { InteropCase } from './runner.ts';

const SIZE_BYTES = 8 * 1024 * 1024;

/** Runs commands in one qemu-io; each that fails, verification included, fails the case. */
async function qemuIo(uri: string, commands: readonly string[]): Promise<string> {
  const args = commands.flatMap((command) => ['-c', command]);
  const { stdout } = await mustRun('qemu-io', ['-f', 'raw', ...args, uri]);
  assert.doesNotMatch(stdout, /fail|error/i);
  return stdout;
}

/** Offsets and lengths around the borders of sectors, pages and ring requests. */
const RAGGED: readonly (readonly [offset: number, length: number])[] = [
  [0, 1],
  [1, 1],
  [511, 1],
  [511, 2],
  [510, 516],
  [512, 512],
  [513, 511],
  [1000, 3],
  [4095, 2],
  [4096, 4096],
  [4097, 8191],
  [12345, 70001],
  [45055, 45057],
  [45056, 45056],
  [200000, 1],
  [SIZE_BYTES - 1, 1],
  [SIZE_BYTES - 513, 513],
  [1048575, 2097155],
];

export const qemuIoCases: readonly InteropCase[] = [
  {
    name: 'qemu-io writes and reads patterns at ragged offsets',
    needs: ['qemu-io'],
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const model = readFileSync(image);
      const server = await context.serve(image);
      const commands: string[] = [];
      let pattern = 1;
      for (const [offset, length] of RAGGED) {
        commands.push(`write -P ${pattern} ${offset} ${length}`);
        commands.push(`read -P ${pattern} ${offset} ${length}`);
        model.fill(pattern, offset, offset + length);
        pattern++;
      }
      await qemuIo(server.uri, [...commands, 'flush']);
      assertSameBytes(readFileRange(image, 0, SIZE_BYTES), model, 'the file behind the export');
    },
  },
  {
    name: 'qemu-io in random order: writes, zeroes and reads against a model',
    needs: ['qemu-io'],
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const model = readFileSync(image);
      const server = await context.serve(image);
      const random = new SeededRandom(context.options.seed);
      const commands: string[] = [];
      for (let i = 0; i < 250; i++) {
        const length = 1 + random.below(random.pick([16, 600, 5000, 300_000]));
        const offset = random.below(SIZE_BYTES - length);
        const pattern = 1 + random.below(255);
        const flag = random.pick(['', '-f ']);
        if (random.below(4) === 0) {
          commands.push(`write ${flag}-z ${offset} ${length}`);
          model.fill(0, offset, offset + length);
          commands.push(`read -P 0 ${offset} ${length}`);
        } else {
          commands.push(`write ${flag}-P ${pattern} ${offset} ${length}`);
          model.fill(pattern, offset, offset + length);
          commands.push(`read -P ${pattern} ${offset} ${length}`);
        }
      }
      await qemuIo(server.uri, [...commands, 'flush']);
      const what = `seed ${context.options.seed}: the file behind the export`;
      assertSameBytes(readFileRange(image, 0, SIZE_BYTES), model, what);
    },
  },
  {
    name: 'qemu-io keeps 32 overlapping reads and disjoint writes in flight',
    needs: ['qemu-io'],
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const model = readFileSync(image);
      const server = await context.serve(image);
      const commands: string[] = [];
      // Neighbours share sectors: each write begins where the one before ends.
      const length = 1777;
      for (let i = 0; i < 32; i++) {
        commands.push(`aio_write -P ${i + 1} ${i * length} ${length}`);
        model.fill(i + 1, i * length, (i + 1) * length);
      }
      commands.push('aio_flush');
      for (let i = 0; i < 32; i++) commands.push(`aio_read -P ${i + 1} ${i * length} ${length}`);
      await qemuIo(server.uri, [...commands, 'aio_flush', 'flush']);
      assertSameBytes(readFileRange(image, 0, SIZE_BYTES), model, 'the file behind the export');
    },
  },
  {
    name: 'qemu-io discards leave everything outside the range alone',
    needs: ['qemu-io'],
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const model = readFileSync(image);
      const server = await context.serve(image);
      const discards: readonly (readonly [number, number])[] = [
        [0, 65536],
        [100_001, 70_003],
        [1_048_576, 2_097_152],
        [SIZE_BYTES - 5000, 5000],
      ];
      await qemuIo(
        server.uri,
        discards.map(([offset, length]) => `discard ${offset} ${length}`),
      );
      // Inside a discarded range the content is undefined.
      const after = readFileRange(image, 0, SIZE_BYTES);
      for (const [offset, length] of discards) {
        after.fill(0, offset, offset + length);
        model.fill(0, offset, offset + length);
      }
      assertSameBytes(after, model, 'outside of the discarded ranges');
    },
  },
];
