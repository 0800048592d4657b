// The thread of a simulated back end stays with its front end while requests are small.
import t from 'tap';
import { createEngineStats } from '../../src/sim/engine-stats.ts';
import { FrontEndFollower } from '../../src/sim/front-end-follower.ts';

/** One look at the requests. */
const TURNS = 64;

class RecordedBinding {
  readonly calls: (number | 'release')[] = [];
  isAllowed = true;

  bind(processor: number): boolean {
    this.calls.push(processor);
    return this.isAllowed;
  }

  release(): void {
    this.calls.push('release');
  }
}

function setUp() {
  const binding = new RecordedBinding();
  const stats = createEngineStats();
  const thread = { isAwake: false };
  const follower = new FrontEndFollower(binding, stats);
  const serve = (processor: number, bytesEach: number, turns = TURNS, each = 1): void => {
    for (let turn = 0; turn < turns; turn++) {
      stats.requests += each;
      stats.readBytes += each * bytesEach;
      follower.rung(processor, thread.isAwake);
    }
  };
  return { binding, follower, serve, thread };
}

void t.test('it follows small requests, and each move of the front end once', async (t) => {
  const { binding, serve } = setUp();
  serve(3, 4096, TURNS - 1);
  t.same(binding.calls, [], 'nothing is known yet');
  serve(3, 4096);
  t.same(binding.calls, [3]);
  serve(5, 4096, 10);
  serve(3, 4096, 10);
  t.same(binding.calls, [3, 5, 3]);
});

void t.test('large requests set it free, and small ones bind it again', async (t) => {
  const { binding, serve } = setUp();
  serve(1, 4096);
  serve(1, 256 * 1024);
  t.same(binding.calls, [1, 'release']);
  serve(1, 4096);
  t.same(binding.calls, [1, 'release', 1]);
});

void t.test('it is free again when there is nobody to follow', async (t) => {
  const { binding, follower, serve } = setUp();
  serve(1, 4096);
  follower.stop();
  follower.stop();
  t.same(binding.calls, [1, 'release']);
});

void t.test('a processor that it may not use is tried once in a while', async (t) => {
  const { binding, serve } = setUp();
  binding.isAllowed = false;
  serve(1, 4096, 2 * TURNS);
  t.ok(binding.calls.length <= 2, `${binding.calls.length} tries`);
});

void t.test(
  'one that is awake follows requests that come together, and no single ones',
  async (t) => {
    const { binding, serve, thread } = setUp();
    thread.isAwake = true;
    serve(1, 4096);
    t.same(binding.calls, []);
    serve(1, 4096, TURNS, 2);
    t.same(binding.calls, [1]);
    serve(1, 4096);
    t.same(binding.calls, [1, 'release']);
  },
);
