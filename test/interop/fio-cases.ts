// fio with checksums: four connections write blocks of 4 KiB to 1 MiB at random and read them back.
// Each block carries its own crc32c, so a block that is old, torn or from elsewhere is seen.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createSparseImage } from '../support/disk-image.ts';
import { mustRun, words } from '../support/program.ts';
import type { CaseContext, InteropCase } from './runner.ts';

export const JOB_BYTES: number = 64 * 1024 * 1024;
export const JOB_COUNT: number = 4;

interface FioDirection {
  readonly total_ios: number;
  readonly io_bytes: number;
}

/** Runs fio on regions that do not overlap, one for each connection. */
export async function fioVerify(
  context: CaseContext,
  uri: string,
  args: readonly string[],
  seconds = 30,
): Promise<{ read: FioDirection; write: FioDirection }> {
  const output = context.path('fio.json');
  await mustRun(
    'fio',
    [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uri}`,
      '--thread',
      '--group_reporting',
      `--numjobs=${JOB_COUNT}`,
      `--size=${JOB_BYTES}`,
      `--offset_increment=${JOB_BYTES}`,
      ...words('--verify=crc32c --verify_fatal=1 --verify_dump=0'),
      `--randseed=${context.options.seed}`,
      '--output-format=json',
      `--output=${output}`,
      ...args,
    ],
    { timeoutMs: (seconds + 30) * 1000, cwd: context.folder },
  );
  // The nbd engine prints a line for each connection into the same file.
  const text = readFileSync(output, 'utf8');
  const [job] = JSON.parse(text.slice(text.indexOf('{'))).jobs;
  assert.equal(job.error, 0, 'the error that fio reports');
  return job;
}

function serveEmpty(context: CaseContext): ReturnType<CaseContext['serve']> {
  const image = context.path('disk.raw');
  createSparseImage(image, JOB_BYTES * JOB_COUNT);
  return context.serve(image);
}

export const fioCases: readonly InteropCase[] = [
  {
    name: 'fio --verify=crc32c fills the disk, then verifies all of it',
    needs: ['fio'],
    async run(context) {
      const server = await serveEmpty(context);
      const args = ['--rw=randwrite', '--bsrange=4k-1M', '--iodepth=16'];
      const { read, write } = await fioVerify(context, server.uri, args);
      assert.equal(write.io_bytes, JOB_BYTES * JOB_COUNT, 'bytes written');
      assert.equal(read.io_bytes, write.io_bytes, 'bytes verified');
    },
  },
  {
    name: 'fio --verify=crc32c, blocks of odd sizes at odd offsets',
    needs: ['fio'],
    async run(context) {
      const server = await serveEmpty(context);
      const args = ['--rw=write', '--bsrange=1k-200k', '--bs_unaligned', '--iodepth=16'];
      const { read, write } = await fioVerify(context, server.uri, args);
      assert.ok(write.io_bytes > JOB_BYTES * JOB_COUNT * 0.9, 'bytes written');
      assert.equal(read.io_bytes, write.io_bytes, 'bytes verified');
    },
  },
  {
    name: 'fio --verify=crc32c, 4 KiB to 1 MiB, random, 4 connections, for a minute',
    needs: ['fio'],
    timeoutMs: 180_000,
    async run(context) {
      const server = await serveEmpty(context);
      const seconds = context.options.isQuick ? 5 : 60;
      const args = words('--rw=randwrite --bsrange=4k-1M --iodepth=16 --verify_backlog=32');
      args.push('--time_based', `--runtime=${seconds}`);
      const { read, write } = await fioVerify(context, server.uri, args, seconds);
      assert.ok(write.total_ios > 100, `only ${write.total_ios} writes`);
      assert.ok(
        read.total_ios > write.total_ios / 2,
        `only ${read.total_ios} of ${write.total_ios} blocks were verified`,
      );
    },
  },
];
