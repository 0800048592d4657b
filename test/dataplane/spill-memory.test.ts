// Goal: memory for large reads is given up to its limit, at n - 1, n and n + 1; the first is given
// whatever its size; and what is given back is given again.
import t from 'tap';
import { SpillMemory } from '../../src/dataplane/spill-memory.ts';

const KIB = 1024;
const UNIT = 64 * KIB;

void t.test('the limit', (t) => {
  for (const [second, isGiven] of [
    [UNIT - 1, true],
    [UNIT, true],
    // Blocks are powers of two, at least 64 KiB: this one would be 128.
    [UNIT + 1, false],
  ] as const) {
    const memory = new SpillMemory(2 * UNIT);
    t.ok(memory.allocate(UNIT) !== 0);
    t.equal(memory.allocate(second) !== 0, isGiven, `64 KiB and ${second} of 128 KiB`);
    t.equal(memory.usedBytes, isGiven ? 2 * UNIT : UNIT);
  }
  t.end();
});

void t.test('one may always go on', (t) => {
  for (const limitBytes of [0, UNIT - 1, 2 * UNIT]) {
    const memory = new SpillMemory(limitBytes);
    const large = memory.allocate(1024 * KIB);
    t.ok(large !== 0, `1 MiB of ${limitBytes}`);
    t.equal(memory.allocate(1), 0, 'but nobody beside it');
    memory.free(large, 1024 * KIB);
    t.equal(memory.usedBytes, 0);
    t.equal(memory.allocate(600 * KIB), large, 'a block of that kind is used again');
  }
  t.end();
});
