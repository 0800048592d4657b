// Real clients of a server whose back end makes trouble on purpose.
import assert from 'node:assert/strict';
import { createSparseImage } from '../support/disk-image.ts';
import { mustRun, runProgram, words } from '../support/program.ts';
import { fioVerify, JOB_BYTES, JOB_COUNT } from './fio-cases.ts';
import type { CaseContext, InteropCase } from './runner.ts';

const MIB = 1024 * 1024;

/** Lines of our log about `event`. */
function linesAbout(output: string, event: string): string[] {
  return output.split('\n').filter((line) => line.includes(`"event":"${event}"`));
}

/** The back end restarts every two seconds, in each of the ways that one can. */
async function restartForAMinute(context: CaseContext): Promise<void> {
  const { seed, isQuick } = context.options;
  const seconds = isQuick ? 10 : 60;
  const image = context.path('disk.raw');
  createSparseImage(image, JOB_BYTES * JOB_COUNT);
  const server = await context.serve(image, {
    extraArgs: ['--simulate-faults', `restart=2,seed=${seed}`],
  });
  const args = words('--rw=randwrite --bsrange=4k-256k --iodepth=32 --verify_backlog=64');
  args.push('--time_based', `--runtime=${seconds}`);
  const { read, write } = await fioVerify(context, server.uri, args, seconds + 30);
  const recoveries = linesAbout(server.output, 'recovery-ended').length;
  console.log(
    `    seed ${seed}: ${recoveries} recoveries; ${write.total_ios} writes, ${read.total_ios} verified`,
  );
  assert.ok(recoveries >= seconds / 3, `only ${recoveries} recoveries in ${seconds} s`);
  assert.ok(read.total_ios > write.total_ios / 2, 'most of what was written was verified');
  assert.equal(linesAbout(server.output, 'backend-broken').length, 0, server.output);

  const copy = context.path('copy.raw');
  await mustRun('nbdcopy', [server.uri, copy], { timeoutMs: 60_000 });
  await mustRun('cmp', [copy, image], { timeoutMs: 60_000 });
}

/** The back end lies; real clients must be told of an error, and nothing worse may happen. */
async function hostileBackend(context: CaseContext): Promise<void> {
  const { seed } = context.options;
  const image = context.path('disk.raw');
  createSparseImage(image, 64 * MIB);
  const server = await context.serve(image, {
    extraArgs: ['--queues', '2', '--simulate-faults', `hostile,seed=${seed}`],
  });
  const load = await runProgram(
    'fio',
    [
      '--name=load',
      '--ioengine=nbd',
      `--uri=${server.uri}`,
      ...words('--thread --numjobs=2 --rw=randrw --bs=4k --iodepth=16 --size=60M'),
      ...words('--time_based --runtime=40'),
    ],
    { timeoutMs: 60_000 },
  );
  assert.notEqual(load.status, 0, 'fio saw no error, though the back end lied');
  assert.match(load.stdout + load.stderr, /Input\/output error/);
  for (const program of ['nbdcopy', 'qemu-img'] as const) {
    const args = program === 'nbdcopy' ? [server.uri, 'null:'] : ['bench', '-f', 'raw', server.uri];
    const { status, stderr, stdout } = await runProgram(program, args, { timeoutMs: 30_000 });
    assert.notEqual(status, 0, program);
    assert.match(stdout + stderr, /Input\/output error/, program);
  }
  assert.equal(server.endedHow, undefined, 'the server goes on');
  assert.equal(linesAbout(server.output, 'backend-broken').length, 1, 'told once');
  assert.doesNotMatch(server.output, /\n\s+at /, 'no stack trace');
}

export const troubleCases: readonly InteropCase[] = [
  {
    name: 'a back end that restarts every 2 s: fio --verify, depth 32, 4 connections, sees no error',
    needs: ['fio', 'nbdcopy'],
    isOurs: true,
    timeoutMs: 240_000,
    run: restartForAMinute,
  },
  {
    name: 'a hostile back end: fio, nbdcopy and qemu-img are told of an error, the log says it once',
    needs: ['fio', 'nbdcopy', 'qemu-img'],
    isOurs: true,
    timeoutMs: 180_000,
    run: hostileBackend,
  },
];
