/**
 * Goal: no order of troubles makes the front end give a ring back too early, hang, or fail: once
 * the trouble is over it is connected, with nothing of the past held, and closes cleanly.
 * Method: random histories of a scripted back end, toolstack and owner, with random pauses; the
 * fake host notes every release that comes too early. A failing history is shrunk and printed.
 */

import fc from 'fast-check';
import t from 'tap';
import { World } from './support/world.ts';

const FE = 'device/vbd/51728';

/** What may happen. Each leaves the world in a state that a real one can be in. */
const TROUBLES = {
  forceClosing: (world: World) => world.back.state !== undefined && world.back.setState(5),
  forceClosed: (world: World) => {
    if (world.back.state !== undefined) {
      world.back.hasRing = false;
      world.back.setState(6);
    }
  },
  bindAnew: (world: World) => world.back.state !== undefined && world.back.probe(),
  backendGone: (world: World) => world.back.unplugBackendOnly(),
  frontendGone: (world: World) => world.store.remove(world.back.frontendPath),
  unplug: (world: World) => world.back.unplug(),
  plugAnew: (world: World) => {
    world.back.unplug();
    world.back.plug();
  },
  detach: (world: World) => world.back.state !== undefined && world.back.detach(),
  resetState: (world: World) =>
    world.back.frontendState !== undefined && world.store.set(`${FE}/state`, '1'),
  refuse: (world: World) => {
    world.back.refusals = 2;
  },
  noPages: (world: World) => {
    world.host.limitPages = 0;
  },
  pages: (world: World) => {
    world.host.limitPages = 1024;
  },
  deaf: (world: World) => {
    world.back.isDeaf = true;
  },
  hearing: (world: World) => {
    world.back.isDeaf = false;
  },
  slowOwner: (world: World) => {
    world.owner.isPrompt = false;
  },
  promptOwner: (world: World) => {
    world.owner.isPrompt = true;
    world.owner.letGo();
  },
  letGo: (world: World) => world.owner.letGo(),
  resize: (world: World) => world.back.state === '4' && world.back.resize('262144'),
  /** As after a restore on another host, where the guest got its old number. */
  fireAll: (world: World) => world.store.fireAll(),
} as const;
type Trouble = keyof typeof TROUBLES;

const history = fc.array(
  fc.record({
    trouble: fc.constantFrom(...(Object.keys(TROUBLES) as Trouble[])),
    /** Microtask rounds, then milliseconds, until the next. */
    rounds: fc.integer({ min: 0, max: 12 }),
    pauseMs: fc.oneof(fc.constant(0), fc.constant(0), fc.integer({ min: 0, max: 3_000 })),
  }),
  { minLength: 1, maxLength: 12 },
);

async function play(steps: { trouble: Trouble; rounds: number; pauseMs: number }[]): Promise<void> {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  for (const { trouble, rounds, pauseMs } of steps) {
    TROUBLES[trouble](world);
    for (let round = 0; round < rounds; round++) {
      await Promise.resolve();
    }
    if (pauseMs > 0) {
      await world.clock.advance(pauseMs);
    }
  }
  // The trouble ends: a working host and owner, and the disk attached anew.
  TROUBLES.pages(world);
  TROUBLES.hearing(world);
  TROUBLES.promptOwner(world);
  world.back.refusals = 0;
  await world.clock.advance(10_000);
  TROUBLES.plugAnew(world);
  await world.clock.advance(60_000);
  const end = world.owner.end;
  if (frontend.state !== 'connected' || world.states !== '4/4') {
    throw new Error(`${frontend.state} at ${world.states}: ${end?.error?.message ?? 'no error'}`);
  }
  if (world.faults.length > 0) {
    throw new Error(world.faults.join(', '));
  }
  // Channels from before a possible restore are kept open on purpose.
  const portsHeld = (): number => world.host.channels.size - world.owner.orphans.length;
  const holdings = (): string => `${world.host.grantedPages} pages, ${portsHeld()} ports`;
  if (holdings() !== '1 pages, 1 ports') {
    throw new Error(`${holdings()} are held`);
  }
  world.owner.isUsingRing = false;
  const closed = frontend.close();
  await world.clock.advance(1_000);
  const { reason, isBackendFinished } = await closed;
  if (reason !== 'closed' || !isBackendFinished || holdings() !== '0 pages, 0 ports') {
    throw new Error(`closed as ${reason}, ${holdings()} are held`);
  }
  if (world.faults.length > 0 || world.clock.timerCount !== 0) {
    throw new Error(`${world.faults.join(', ')}; ${world.clock.timerCount} timers`);
  }
}

void t.test('random histories end well', async (t) => {
  const numRuns = Number(process.env['FRONTEND_HISTORIES'] ?? 25);
  const seed = Number(process.env['FRONTEND_SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`seed ${seed}`);
  await fc.assert(fc.asyncProperty(history, play), { numRuns, seed });
  t.pass(`${numRuns} histories`);
  t.end();
});
