// What real clients make of BLOCK_STATUS: zeroes that the server knows of, and never a guess.
import assert from 'node:assert/strict';
import { mustRun } from '../support/program.ts';
import type { CaseContext, InteropCase } from './runner.ts';

const MIB = 1024 * 1024;
const SIZE_BYTES = 16 * MIB;
const CHUNK_BYTES = 64 * 1024;

/** Zeroes 4 MiB in the middle of data, and writes one byte into that. */
const WRITES = ['write -P 7 0 16M', 'write -z 4M 4M', 'write -P 9 5M 1', 'flush'];

async function prepare(context: CaseContext): Promise<string> {
  const server = await context.serve(context.image(SIZE_BYTES), {
    extraArgs: ['--queues', '2', '--simulate-features', 'queues=2'],
  });
  const commands = WRITES.flatMap((command) => ['-c', command]);
  await mustRun('qemu-io', ['-f', 'raw', ...commands, server.uri]);
  return server.uri;
}

const EXPECTED: readonly (readonly [offset: number, length: number, isZero: boolean])[] = [
  [0, 4 * MIB, false],
  [4 * MIB, MIB, true],
  [5 * MIB, CHUNK_BYTES, false],
  [5 * MIB + CHUNK_BYTES, 3 * MIB - CHUNK_BYTES, true],
  [8 * MIB, 8 * MIB, false],
];

export const statusCases: readonly InteropCase[] = [
  {
    name: 'nbdinfo --map shows what another connection has zeroed',
    needs: ['nbdinfo', 'qemu-io'],
    isOurs: true,
    async run(context) {
      const uri = await prepare(context);
      const { stdout } = await mustRun('nbdinfo', ['--map', '--json', uri]);
      const map = JSON.parse(stdout) as { offset: number; length: number; type: number }[];
      assert.deepEqual(
        map.map(({ offset, length, type }) => [offset, length, type]),
        EXPECTED.map(([offset, length, isZero]) => [offset, length, isZero ? 2 : 0]),
      );
    },
  },
  {
    name: 'qemu-img map shows the same',
    needs: ['qemu-img', 'qemu-io'],
    isOurs: true,
    async run(context) {
      const uri = await prepare(context);
      const { stdout } = await mustRun('qemu-img', ['map', '--output=json', '-f', 'raw', uri]);
      const map = JSON.parse(stdout) as { start: number; length: number; zero: boolean }[];
      assert.deepEqual(
        map.map(({ start, length, zero }) => [start, length, zero]),
        EXPECTED,
      );
    },
  },
  {
    name: 'nbdcopy of a disk with zeroes that are known',
    needs: ['nbdcopy', 'qemu-io', 'qemu-img'],
    isOurs: true,
    async run(context) {
      const uri = await prepare(context);
      const copy = context.path('copy.raw');
      await mustRun('nbdcopy', ['--connections=4', uri, copy]);
      await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, copy]);
    },
  },
  {
    name: 'nbdsh: zeroes and data in turn on four connections, the map never lies',
    needs: ['nbdsh'],
    isOurs: true,
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES), {
        extraArgs: ['--queues', '2', '--simulate-features', 'queues=2'],
      });
      const env = { PATH: `/usr/bin:${process.env['PATH'] ?? ''}` };
      const script = `
import random
rng = random.Random(${context.options.seed})
def connect():
    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri("${server.uri}")
    assert handle.can_meta_context("base:allocation")
    return handle
handles = [connect() for _ in range(4)]
size = handles[0].get_size()
zeroes = 0
for turn in range(400):
    handle = rng.choice(handles)
    offset = rng.randrange(0, size, 4096)
    length = min(rng.choice([512, 65536, 200000, 3000000]), size - offset)
    if rng.random() < 0.6:
        handle.zero(length, offset)
    else:
        handle.pwrite(b"x" * length, offset)
    if turn % 10 == 0:
        entries = []
        def extent(context, at, found, error):
            pairs = list(zip(found[0::2], found[1::2]))
            for count, flags in pairs:
                entries.append((at, count, flags))
                at += count
            return 0
        rng.choice(handles).block_status(size, 0, extent)
        assert sum(count for _, count, _ in entries) == size
        for at, count, flags in entries:
            assert flags in (0, nbd.STATE_ZERO), flags
            if flags == nbd.STATE_ZERO:
                zeroes += count
                assert not any(handles[0].pread(count, at)), (turn, at, count)
assert zeroes > 0
for handle in handles:
    handle.shutdown()
`;
      await mustRun('nbdsh', ['-c', script], { env });
    },
  },
];
