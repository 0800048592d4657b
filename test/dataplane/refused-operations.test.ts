// Goal: a backend may say at any time that it does not know an operation that it has announced. It
// is not asked for it again on this connection, the next best takes its place, and nobody is told
// that something is stable which is not.

import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import t from 'tap';
import { BlkifOp } from '../../src/blkif/index.ts';
import { Counter } from '../../src/dataplane/counters.ts';
import { runSeed } from '../support/random.ts';
import { createEngine, type EngineWorld } from './engine-world.ts';

const FLUSH = BlkifOp.BLKIF_OP_FLUSH_DISKCACHE;
const BARRIER = BlkifOp.BLKIF_OP_WRITE_BARRIER;

function create(refused: readonly number[], canFallBackToBarrier = false): EngineWorld {
  const world = createEngine({
    seed: runSeed(),
    poolPages: 16,
    ringPages: 1,
    maxSegments: 11,
    sectorBytes: 512,
    sizeBytes: 1 << 20,
  });
  world.backend.refused = refused;
  world.engine.diskChanged({ ...world.disk, canFallBackToBarrier });
  return world;
}

/** Its answer, and how many requests on the ring it took. */
function ask({ engine, ring, backend }: EngineWorld, command: number, isFua = false) {
  const before = backend.requests;
  let errno = -1;
  const operation = engine.take();
  if (operation === undefined) throw new Error('no operation');
  operation.command = command;
  operation.offset = 0;
  operation.lengthBytes = command === NbdCmd.FLUSH ? 0 : 65_536;
  operation.isFua = isFua;
  operation.requester = {
    payloadWanted: () => undefined,
    payloadRefused: () => undefined,
    replyReady: (done) => {
      errno = done.errno;
      engine.release(done);
    },
  };
  engine.start(operation);
  for (let turn = 0; turn < 10 && !engine.isIdle; turn++) {
    ring.publish();
    backend.step(8);
    engine.collect();
    engine.pump();
  }
  return { errno, requests: backend.requests - before };
}

void t.test('a trim: a hint that is not taken, and not given again', (t) => {
  const world = create([BlkifOp.BLKIF_OP_DISCARD]);
  const { counters, engine, disk, backend } = world;
  t.strictSame(ask(world, NbdCmd.TRIM), { errno: 0, requests: 1 });
  t.equal(counters.get(Counter.TRIMS_REFUSED_NOW), 1);
  t.strictSame(ask(world, NbdCmd.TRIM), { errno: 0, requests: 0 });
  t.strictSame(ask(world, NbdCmd.TRIM, true), { errno: 0, requests: 1 }, 'FUA is still a flush');
  t.equal(backend.flushes, 1);
  backend.refused = [];
  engine.diskChanged(disk);
  t.equal(counters.get(Counter.TRIMS_REFUSED_NOW), 0, 'the next connection may know it');
  t.strictSame(ask(world, NbdCmd.TRIM), { errno: 0, requests: 1 });
  t.end();
});

void t.test('a flush: an empty barrier takes its place', (t) => {
  const world = create([FLUSH], true);
  t.strictSame(ask(world, NbdCmd.FLUSH), { errno: 0, requests: 2 });
  t.strictSame(ask(world, NbdCmd.FLUSH), { errno: 0, requests: 1 }, 'at once from then on');
  world.backend.refused = [FLUSH, BARRIER];
  t.strictSame(ask(world, NbdCmd.FLUSH), { errno: NbdErrno.EIO, requests: 1 });
  t.end();
});

void t.test('a flush that nothing can replace is an error each time', (t) => {
  const world = create([FLUSH]);
  for (let round = 0; round < 2; round++) {
    t.strictSame(ask(world, NbdCmd.FLUSH), { errno: NbdErrno.EIO, requests: 1 });
    t.strictSame(ask(world, NbdCmd.WRITE_ZEROES, true).errno, NbdErrno.EIO, 'FUA as well');
    t.strictSame(ask(world, NbdCmd.WRITE_ZEROES).errno, 0);
  }
  t.end();
});

void t.test('what could not be done is counted, and what found another way is not', (t) => {
  const world = create([FLUSH, BlkifOp.BLKIF_OP_DISCARD], true);
  const { counters, backend, disk, engine } = world;
  const failed = (): number[] =>
    [
      Counter.FAILED_READS,
      Counter.FAILED_WRITES,
      Counter.FAILED_FLUSHES,
      Counter.FAILED_TRIMS,
      Counter.FAILED_BYTE,
      Counter.FAILED_MS,
    ].map((counter) => counters.get(counter));
  ask(world, NbdCmd.FLUSH);
  ask(world, NbdCmd.TRIM);
  t.strictSame(failed(), [0, 0, 0, 0, 0, 0]);
  counters.values[Counter.CLOCK_MS_NOW] = 7;
  backend.refused = [FLUSH, BARRIER];
  // In the second of the two requests of a read, each of half the pool, and in the first of zeroes.
  backend.badSector = 8 * 8;
  t.strictSame(ask(world, NbdCmd.READ), { errno: NbdErrno.EIO, requests: 2 });
  t.strictSame(failed(), [1, 0, 0, 0, 8 * 4096, 7]);
  t.strictSame(ask(world, NbdCmd.WRITE_ZEROES), { errno: NbdErrno.EIO, requests: 1 });
  t.strictSame(failed(), [1, 1, 0, 0, 0, 7]);
  counters.values[Counter.CLOCK_MS_NOW] = 8;
  t.strictSame(ask(world, NbdCmd.FLUSH).errno, NbdErrno.EIO);
  t.strictSame(failed(), [1, 1, 1, 0, -1, 8]);
  engine.diskChanged(disk);
  backend.failed = [BlkifOp.BLKIF_OP_DISCARD];
  t.strictSame(ask(world, NbdCmd.TRIM), { errno: NbdErrno.EIO, requests: 1 });
  t.strictSame(failed(), [1, 1, 1, 1, 0, 8]);
  t.end();
});
