// Goal: a read that is answered in pieces hands over each byte once and in order, asks for a piece
// only when the one before has left, and ends with an error, or silently, wherever it is stopped.
import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import t from 'tap';
import type { Operation } from '../../src/dataplane/operation.ts';
import { PAGE_SIZE } from '../../src/sys/index.ts';
import { runSeed } from '../support/random.ts';
import { createEngine, type EngineWorld } from './engine-world.ts';

const KIB = 1024;
const POOL_PAGES = 32;
/** A quarter of the pool. */
const PIECE_BYTES = 8 * PAGE_SIZE;

interface Answer {
  readonly pieces: { readonly offset: number; readonly bytes: Buffer; readonly isMore: boolean }[];
  errno: number;
}

function create(): EngineWorld {
  const world = createEngine({
    seed: runSeed(),
    poolPages: POOL_PAGES,
    ringPages: 1,
    maxSegments: 32,
    sectorBytes: 512,
    sizeBytes: 1 << 20,
  });
  for (let at = 0; at < world.backend.disk.length; at++) world.backend.disk[at] = (at / 509) & 0xff;
  return world;
}

function bytesOf({ pool }: EngineWorld, operation: Operation, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  let page = operation.firstPage;
  let skip = operation.skewBytes;
  for (let at = 0; at < lengthBytes; page = pool.next(page)) {
    const count = Math.min(lengthBytes - at, PAGE_SIZE - skip);
    for (let i = 0; i < count; i++) {
      bytes[at + i] = pool.view.getUint8(page * PAGE_SIZE + skip + i);
    }
    at += count;
    skip = 0;
  }
  return bytes;
}

/** Starts a read; `sent` is called with each piece, and says when it has left. */
function read(
  world: EngineWorld,
  range: { readonly offset: number; readonly lengthBytes: number; readonly isAlone?: boolean },
  sent: (operation: Operation) => void,
): { readonly answer: Answer; readonly operation: Operation } {
  const { engine } = world;
  const answer: Answer = { pieces: [], errno: -1 };
  const operation = engine.take();
  if (operation === undefined) throw new Error('no operation');
  operation.command = NbdCmd.READ;
  operation.offset = range.offset;
  operation.lengthBytes = range.lengthBytes;
  operation.mayFragment = true;
  operation.isAlone = range.isAlone ?? false;
  operation.requester = {
    payloadWanted: () => undefined,
    payloadRefused: () => undefined,
    replyReady: (ready) => {
      const { offset, errno, isMore, issuedBytes, skewBytes, lengthBytes } = ready;
      if (errno === 0) {
        const count = isMore ? issuedBytes - skewBytes : lengthBytes;
        answer.pieces.push({ offset, bytes: bytesOf(world, ready, count), isMore });
      }
      if (!isMore) answer.errno = errno;
      sent(ready);
    },
  };
  engine.start(operation);
  return { answer, operation };
}

function turn({ ring, backend, engine }: EngineWorld): void {
  ring.publish();
  backend.step(8);
  engine.collect();
  engine.pump();
}

function finish(world: EngineWorld): void {
  for (let turns = 0; turns < 200 && !world.engine.isIdle; turns++) turn(world);
}

/** A reply that is read at once. */
function leave({ engine }: EngineWorld) {
  return (operation: Operation): void => {
    if (operation.isMore) engine.readOn(operation);
    else engine.release(operation);
  };
}

void t.test('each byte once, whatever the ends of the range', (t) => {
  for (const [offset, lengthBytes] of [
    [0, 100 * KIB],
    [0, 3 * PIECE_BYTES],
    [1, 3 * PIECE_BYTES],
    [4095, 3 * PIECE_BYTES + 2],
    [511, PIECE_BYTES + 1],
    [512 * 7, 2 * PIECE_BYTES - 1],
    [12_345, 900 * KIB],
  ] as const) {
    const world = create();
    const { answer } = read(world, { offset, lengthBytes }, leave(world));
    finish(world);
    t.equal(answer.errno, 0);
    t.ok(answer.pieces.length >= lengthBytes / PIECE_BYTES, `${answer.pieces.length} pieces`);
    let at = offset;
    for (const piece of answer.pieces) {
      if (piece.offset !== at) t.fail(`a piece at ${piece.offset} instead of ${at}`);
      at += piece.bytes.length;
    }
    t.equal(at, offset + lengthBytes);
    const got = Buffer.concat(answer.pieces.map(({ bytes }) => bytes));
    t.ok(
      got.equals(Buffer.from(world.backend.disk.subarray(offset, at))),
      `${offset}+${lengthBytes}`,
    );
    t.strictSame(
      answer.pieces.map(({ isMore }) => isMore),
      answer.pieces.map((_, index) => index < answer.pieces.length - 1),
      'the last says that it is',
    );
    t.equal(world.pool.freeCount, POOL_PAGES, 'all pages are back');
  }
  t.end();
});

void t.test('the next piece waits until the one before has left', (t) => {
  const world = create();
  const held: Operation[] = [];
  const { answer } = read(world, { offset: 0, lengthBytes: 100 * KIB }, (ready) =>
    held.push(ready),
  );
  for (let turns = 0; turns < 20; turns++) turn(world);
  t.equal(answer.pieces.length, 1);
  t.equal(world.pool.freeCount, POOL_PAGES - PIECE_BYTES / PAGE_SIZE, 'it holds one piece');
  t.equal(world.backend.requests, 1);
  world.engine.readOn(held[0] as Operation);
  for (let turns = 0; turns < 20; turns++) turn(world);
  t.equal(answer.pieces.length, 2);
  t.end();
});

void t.test('a client that asks one thing at a time has it in one piece', (t) => {
  const world = create();
  const range = { offset: 0, lengthBytes: 2 * PIECE_BYTES, isAlone: true };
  const { answer } = read(world, range, leave(world));
  finish(world);
  t.equal(answer.pieces.length, 1);
  const large = create();
  const pieces = read(large, { ...range, lengthBytes: 3.5 * PIECE_BYTES }, leave(large)).answer;
  finish(large);
  t.ok(pieces.pieces.length > 1, 'but not three quarters of all pages');
  t.end();
});

void t.test('an error in the middle ends it', (t) => {
  const world = create();
  world.backend.badSector = ((2 * PIECE_BYTES + 700) / 512) | 0;
  const { answer } = read(world, { offset: 0, lengthBytes: 100 * KIB }, leave(world));
  finish(world);
  t.equal(answer.errno, NbdErrno.EIO);
  t.equal(answer.pieces.length, 2, 'what was good was handed over');
  t.equal(world.pool.freeCount, POOL_PAGES);
  t.ok(world.engine.isIdle);
  t.end();
});

void t.test('its client leaves: nothing more is asked', (t) => {
  const world = create();
  const { answer, operation } = read(world, { offset: 0, lengthBytes: 100 * KIB }, leave(world));
  world.engine.abandon(operation);
  finish(world);
  t.equal(answer.pieces.length, 0);
  t.equal(world.backend.requests, 1);
  t.ok(world.engine.isIdle);
  t.equal(world.pool.freeCount, POOL_PAGES);
  t.end();
});

void t.test('the backend breaks while a piece is sent', (t) => {
  const world = create();
  const held: Operation[] = [];
  const { answer } = read(world, { offset: 0, lengthBytes: 100 * KIB }, (ready) =>
    held.push(ready),
  );
  turn(world);
  t.equal(held.length, 1);
  world.engine.breakDown();
  t.equal(answer.errno, -1, 'the piece is good');
  world.engine.readOn(held[0] as Operation);
  t.equal(answer.errno, NbdErrno.EIO, 'there is no other');
  t.end();
});
