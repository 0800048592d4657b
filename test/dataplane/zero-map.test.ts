// Goal: what the map of zeroes calls zero reads as zeroes, whatever order lanes begin, execute and
// end their requests in; and it does call zero what nothing has touched.
// Method: a model of one backend and several lanes, as a list of requests of which each is begun,
// executed part by part and answered in any order that a ring allows, and may fail in the middle.
// All orders of a few requests on one chunk are walked through, then random ones on many chunks.
// The same walks must find each of a list of bugs that are planted in the rules.

import { NbdState } from 'nbd-server-ts/protocol';
import t from 'tap';
import {
  createZeroMap,
  dataBegun,
  dataEnded,
  forgotten,
  isZero,
  ZeroMap,
  zeroingBegun,
  zeroingEnded,
} from '../../src/dataplane/zero-map.ts';
import { runSeed, SeededRandom } from '../support/random.ts';

/** The rules of a cell, of which a mutant replaces one. */
const RULES = { dataBegun, dataEnded, zeroingBegun, zeroingEnded, forgotten, isZero };
type Rules = typeof RULES;

const MIXED = 2;
const ONE_ZEROING = 4;
const ONE_WRITE = 1 << 16;

const MUTANTS: Readonly<Record<string, Partial<Rules>>> = {
  'a data write leaves ZERO as it is': {
    dataBegun: (cell) => (cell | MIXED) + ONE_WRITE,
  },
  'a data write leaves zeroings in progress alone': {
    dataBegun: (cell) => (cell & ~1) + ONE_WRITE,
  },
  'a zeroing does not look for data writes in progress': {
    zeroingBegun: (cell) => (cell & ~MIXED) + ONE_ZEROING,
  },
  'a zeroing does not look for other zeroings in progress': {
    zeroingBegun: (cell) => ((cell >> 16 === 0 ? cell & ~MIXED : cell) + ONE_ZEROING) | 0,
  },
  'a zeroing that fails counts as done': {
    zeroingEnded: (cell) => zeroingEnded(cell, true),
  },
  'a zeroing that fails leaves the others alone': {
    zeroingEnded: (cell, isDone) => (isDone ? zeroingEnded(cell, true) : cell - ONE_ZEROING),
  },
  'zeroings in progress outlive a restart': {
    forgotten: (cell) => cell & ~1,
  },
};

/** A request on one chunk of two halves, each of which is a part of its own on the ring. */
interface Request {
  readonly kind: 'data' | 'zeroes';
  /** Its second half fails, and leaves behind what nobody has written. */
  readonly fails: boolean;
  /** 0: to come. 1: begun. 2, 3: so many halves executed. 4: ended. */
  step: number;
}

const GARBAGE = -1;

interface Chunk {
  cell: number;
  /** What each half holds: 0 for zeroes, or the number of a data write. */
  halves: [number, number];
  /** What a restart would bring back where nothing was flushed. */
  old: [number, number];
}

/** Does the next step of a request. */
function advance(chunk: Chunk, request: Request, number: number, rules: Rules): void {
  const value = request.kind === 'data' ? number : 0;
  request.step += 1;
  switch (request.step) {
    case 1:
      chunk.cell =
        request.kind === 'data' ? rules.dataBegun(chunk.cell) : rules.zeroingBegun(chunk.cell);
      return;
    case 2:
      chunk.halves[0] = value;
      return;
    case 3:
      chunk.halves[1] = request.fails ? GARBAGE : value;
      return;
    default:
      chunk.cell =
        request.kind === 'data'
          ? rules.dataEnded(chunk.cell)
          : rules.zeroingEnded(chunk.cell, !request.fails);
  }
}

/** What is wrong with the chunk; undefined when nothing is. */
function lie(
  { cell, halves }: Chunk,
  requests: readonly Request[],
  rules: Rules,
): string | undefined {
  // What a zeroing in progress does before it says that it has failed, nobody can know.
  const isFailing = requests.some(({ fails, step }) => fails && step > 0 && step < 4);
  const isKnown = (half: number): boolean => half === 0 || (half === GARBAGE && isFailing);
  if (!rules.isZero(cell) || halves.every(isKnown)) return undefined;
  return `called zero with ${halves.join(' and ')} in it`;
}

/** Walks through all orders of `requests`, a restart at any one moment included. */
function walk(
  requests: readonly Request[],
  chunk: Chunk,
  rules: Rules,
  canRestart: boolean,
): string[] {
  const wrong = lie(chunk, requests, rules);
  if (wrong !== undefined) return [wrong];
  for (const [index, request] of requests.entries()) {
    if (request.step === 4) continue;
    const copy = requests.map((other) => ({ ...other }));
    const changed: Chunk = { cell: chunk.cell, halves: [...chunk.halves], old: [...chunk.old] };
    advance(changed, copy[index] as Request, index + 1, rules);
    const found = walk(copy, changed, rules, canRestart);
    if (found.length > 0)
      return [
        `${request.kind}${request.fails ? ' that fails' : ''} ${index + 1}: step ${request.step + 1}`,
        ...found,
      ];
  }
  if (!canRestart) return [];
  // What was acknowledged is lost; what was not is executed again in full.
  const again = requests.map((request) => ({
    ...request,
    step: request.step === 2 ? 1 : request.step,
  }));
  for (const halves of [
    [...chunk.old],
    [chunk.halves[0], chunk.old[1]],
    [chunk.old[0], chunk.halves[1]],
  ]) {
    const lost: Chunk = {
      cell: rules.forgotten(chunk.cell),
      halves: halves as [number, number],
      old: chunk.old,
    };
    const found = walk(again, lost, rules, false);
    if (found.length > 0) return ['restart', ...found];
  }
  return [];
}

const SETS: readonly (readonly Pick<Request, 'kind' | 'fails'>[])[] = [
  'z',
  'zd',
  'zz',
  'zD',
  'Zd',
  'zZ',
  'zdz',
  'zzd',
  'zZd',
  'zzD',
  'zzZ',
].map((letters) =>
  Array.from(letters, (letter) => ({
    kind: letter.toLowerCase() === 'z' ? 'zeroes' : 'data',
    fails: letter !== letter.toLowerCase(),
  })),
);

function findLie(rules: Rules): string[] {
  for (const set of SETS) {
    for (const before of [0, 9]) {
      const requests = set.map((request) => ({ ...request, step: 0 }));
      const chunk: Chunk = { cell: 0, halves: [before, before], old: [9, 9] };
      const found = walk(requests, chunk, rules, set.length < 3);
      if (found.length > 0) return found;
    }
  }
  return [];
}

void t.test('in no order of a few requests is a chunk called zero that is not', async (t) => {
  t.strictSame(findLie(RULES), []);
});

for (const [name, mutant] of Object.entries(MUTANTS)) {
  void t.test(`planted: ${name}`, async (t) => {
    const found = findLie({ ...RULES, ...mutant });
    t.not(found.length, 0, 'it is found out');
    t.comment(found.join('; '));
  });
}

void t.test('counts that are at their limit stay there', async (t) => {
  let writes = 0;
  for (let i = 0; i < 40_000; i++) writes = dataBegun(writes);
  const atLimit = writes;
  for (let i = 0; i < 40_000; i++) writes = dataEnded(writes);
  t.equal(writes, atLimit, 'data writes');
  t.equal(isZero(zeroingEnded(zeroingBegun(writes), true)), false);
  let zeroings = 0;
  for (let i = 0; i < 20_000; i++) zeroings = zeroingBegun(zeroings);
  for (let i = 0; i < 20_000; i++) zeroings = zeroingEnded(zeroings, true);
  t.equal(isZero(zeroings), false, 'zeroings');
  t.equal(isZero(zeroingEnded(zeroingBegun(dataEnded(dataBegun(zeroings))), true)), false);
});

const KIB = 1024;
const CHUNK = 64 * KIB;

void t.test(
  'only chunks that are covered become zero, and the end of the disk counts',
  async (t) => {
    const size = 4 * CHUNK + 512;
    const map = new ZeroMap(createZeroMap(size));
    const zero = (offset: number, length: number): void => {
      map.zeroesBegin(offset, length);
      map.zeroesEnd(offset, length, true);
    };
    const look = (offset: number, length: number): [number, number][] =>
      map.extents(undefined, offset, length).map(({ lengthBytes, flags }) => [lengthBytes, flags]);
    t.strictSame(look(0, size), [[size, 0]], 'nothing is known at first');
    zero(1, CHUNK);
    t.strictSame(look(0, size), [[size, 0]], 'none is covered by a chunk that is shifted');
    zero(1, 2 * CHUNK - 1);
    t.strictSame(look(0, size), [
      [CHUNK, 0],
      [CHUNK, NbdState.ZERO],
      [2 * CHUNK + 512, 0],
    ]);
    zero(4 * CHUNK, 512);
    t.strictSame(look(4 * CHUNK + 1, 511), [[511, NbdState.ZERO]], 'the last is shorter');
    t.strictSame(
      look(3 * CHUNK, 3 * CHUNK),
      [
        [CHUNK, 0],
        [512, NbdState.ZERO],
        [2 * CHUNK - 512, 0],
      ],
      'behind the end of the map nothing is known',
    );
    t.strictSame(look(9 * CHUNK, 10), [[10, 0]]);
    map.dataBegins(2 * CHUNK - 1, 1);
    t.strictSame(look(0, 4 * CHUNK), [[4 * CHUNK, 0]], 'one byte of data is enough');
    map.dataEnds(2 * CHUNK - 1, 1);
    zero(0, 4 * CHUNK);
    t.strictSame(look(0, size), [[size, NbdState.ZERO]]);
    map.contentUnknown();
    t.strictSame(look(0, size), [[size, 0]]);
  },
);

void t.test('a map is never large, and a look at it is never long', async (t) => {
  const TIB = 2 ** 40;
  for (const size of [0, 1, 16 * 2 ** 30, TIB, 2 ** 53 - 512]) {
    t.ok(createZeroMap(size).byteLength <= 1024 * KIB + 64, `${size} bytes`);
  }
  const map = new ZeroMap(createZeroMap(16 * 2 ** 30));
  map.zeroesBegin(0, 16 * 2 ** 30);
  map.zeroesEnd(0, 16 * 2 ** 30, true);
  const [first, ...others] = map.extents(undefined, 0, 16 * 2 ** 30);
  t.strictSame([first?.flags, others], [NbdState.ZERO, []], 'one extent');
  t.ok((first?.lengthBytes ?? 0) >= 2 ** 30);
  for (let chunk = 0; chunk < 40_000; chunk += 2) {
    map.dataBegins(chunk * CHUNK, 1);
  }
  const pieces = map.extents(undefined, 0, 16 * 2 ** 30);
  t.equal(pieces.length, 8192);
});

/** A request of the random load. */
interface Flight {
  readonly isZeroes: boolean;
  readonly offset: number;
  readonly length: number;
  readonly fails: boolean;
  readonly number: number;
  /** Bytes of it that were executed. */
  executed: number;
}

void t.test('random requests of several lanes over many chunks', async (t) => {
  const seed = runSeed();
  t.comment(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const unit = 512;
  const units = 200;
  const chunkBytes = 4096;
  let claims = 0;
  for (let round = 0; round < 60; round++) {
    const shared = createZeroMap(units * unit, chunkBytes);
    const lanes = Array.from({ length: 3 }, () => new ZeroMap(shared));
    const disk = new Uint32Array(units).fill(1);
    const durable = Uint32Array.from(disk);
    const flights: Flight[] = [];
    const check = (what: string): boolean => {
      let at = 0;
      for (const { lengthBytes, flags } of random.pick(lanes).extents(undefined, 0, units * unit)) {
        const content = disk.subarray(at / unit, (at + lengthBytes) / unit);
        if (flags !== 0) claims += 1;
        if (flags !== 0 && content.some((value) => value !== 0)) {
          t.fail(`round ${round}: ${at}+${lengthBytes} is called zero after ${what}`);
          return false;
        }
        at += lengthBytes;
      }
      return true;
    };
    for (let turn = 0; turn < 400; turn++) {
      const kind = random.below(100);
      const flight = flights[random.below(flights.length + 1)];
      const lane = random.pick(lanes);
      if (kind < 25 && flights.length < 4) {
        const first = random.below(units);
        const count = 1 + random.below(Math.min(units - first, random.pick([2, 20, 60])));
        const begun: Flight = {
          isZeroes: random.chance(0.65),
          offset: first * unit,
          length: count * unit,
          fails: random.chance(0.1),
          number: round * 1000 + turn + 2,
          executed: 0,
        };
        if (begun.isZeroes) lane.zeroesBegin(begun.offset, begun.length);
        else lane.dataBegins(begun.offset, begun.length);
        flights.push(begun);
      } else if (kind === 99) {
        // A restart: anything that is not durable may be lost, what is in progress is asked again.
        for (let at = 0; at < units; at++) {
          if (random.chance(0.5)) disk[at] = durable[at] as number;
        }
        for (const each of flights) each.executed = 0;
        for (const each of lanes.slice(0, 1)) each.contentUnknown();
      } else if (kind === 98 && flights.length === 0) {
        durable.set(disk);
      } else if (flight !== undefined && flight.executed < flight.length) {
        const count = Math.min(flight.length - flight.executed, unit * (1 + random.below(40)));
        const from = (flight.offset + flight.executed) / unit;
        disk.fill(flight.isZeroes ? 0 : flight.number, from, from + count / unit);
        flight.executed += count;
        if (flight.fails && random.chance(0.3)) flight.executed = flight.length;
      } else if (flight !== undefined) {
        flights.splice(flights.indexOf(flight), 1);
        if (flight.isZeroes) lane.zeroesEnd(flight.offset, flight.length, !flight.fails);
        else lane.dataEnds(flight.offset, flight.length);
      }
      if (!check(`turn ${turn}`)) return;
    }
  }
  t.ok(claims > 1000, `${claims} ranges were called zero`);
});
