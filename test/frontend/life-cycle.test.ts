/**
 * Goal: the table of steps is sound, and the interpretation of XenStore never asks for a step that
 * is not in it, nor begins a new connection while an old one may live.
 * Method: every combination of states, keys, goals and flags.
 */

import { readFileSync } from 'node:fs';
import t from 'tap';
import { XenbusState } from '../../src/blkif/index.ts';
import {
  type FrontendEvent,
  type FrontendState,
  type Goal,
  interpret,
  isFinal,
  LIFE_CYCLE,
  type Situation,
  transition,
} from '../../src/frontend/index.ts';

const STATES = Object.keys(LIFE_CYCLE) as FrontendState[];

void t.test('every step leads to a state of the table, and final states have none', (t) => {
  for (const state of STATES) {
    const rows = Object.entries(LIFE_CYCLE[state]);
    t.equal(rows.length === 0, isFinal(state), `${state} has steps unless it is final`);
    for (const [event, row] of rows) {
      t.ok(STATES.includes(row.to), `${state} + ${event}`);
      t.same(transition(state, event as FrontendEvent), row);
    }
  }
  t.throws(
    () => transition('closed', 'attachFresh'),
    /no step for attachFresh in the state closed/,
  );
  t.end();
});

void t.test('the table in the README is this table', (t) => {
  const rows = Object.entries(LIFE_CYCLE).flatMap(([state, steps]) =>
    Object.entries(steps).map(
      ([event, { to, finishedBecause = '' }]) =>
        `| ${state} | ${event} | ${to} | ${finishedBecause} |`,
    ),
  );
  const readme = readFileSync(new URL('../../../src/frontend/README.md', import.meta.url), 'utf8');
  const [, table = ''] = /<!-- table -->\n(.*)<!-- \/table -->/s.exec(readme) ?? [];
  // The formatter pads the columns.
  const told = table.replaceAll(/ +/g, ' ').trimEnd().split('\n').slice(2);
  t.same(
    told,
    rows.map((row) => row.replaceAll(/ +/g, ' ')),
  );
  t.end();
});

void t.test('every state can be reached, and from every state the end can', (t) => {
  const reach = (from: FrontendState): Set<FrontendState> => {
    const seen = new Set([from]);
    for (const state of seen) {
      for (const row of Object.values(LIFE_CYCLE[state])) {
        seen.add(row.to);
      }
    }
    return seen;
  };
  t.same([...reach('idle')].sort(), [...STATES].sort());
  for (const state of STATES.filter((state) => !isFinal(state))) {
    t.ok(reach(state).has('closed'), `${state} can close`);
    t.ok(reach(state).has('failed'), `${state} can fail`);
  }
  t.end();
});

void t.test('a new connection begins only where the old one is finished or there is none', (t) => {
  const withConnection: FrontendState[] = ['initialised', 'connected', 'draining'];
  for (const state of withConnection) {
    for (const [event, row] of Object.entries(LIFE_CYCLE[state])) {
      if (row.to === 'initialising') {
        t.type(row.finishedBecause, 'string', `${state} + ${event}`);
      }
    }
  }
  for (const state of ['closing', 'finishing', 'absent'] as const) {
    for (const [event, row] of Object.entries(LIFE_CYCLE[state])) {
      if (row.to === 'initialising') {
        t.type(row.finishedBecause, 'string', `${state} + ${event}`);
      }
    }
  }
  t.end();
});

const XENBUS_STATES = Object.values(XenbusState);
const HERE = { path: '/local/domain/0/backend/vbd/1/51728', domid: 0 };
const THERE = { path: '/local/domain/3/backend/vbd/1/51728', domid: 3 };
/** The back end that our keys name instead of the linked one, or undefined for the same. */
const MOVED_STATES = [
  undefined,
  XenbusState.Unknown,
  XenbusState.InitWait,
  XenbusState.Connected,
  XenbusState.Closed,
];
const GOALS: Goal[] = ['serve', 'close', 'fail'];
/** Back ends in these states may hold a ring. */
const ENGAGED: ReadonlySet<XenbusState> = new Set([
  XenbusState.Connected,
  XenbusState.Closing,
  XenbusState.Reconfiguring,
  XenbusState.Reconfigured,
]);

function* situations(state: FrontendState): Generator<Situation> {
  for (const frontendState of XENBUS_STATES) {
    for (const linkedState of XENBUS_STATES) {
      for (const movedState of MOVED_STATES) {
        for (const goal of GOALS) {
          for (let flags = 0; flags < 256; flags++) {
            const isMoved = movedState !== undefined;
            yield {
              state,
              observation: {
                frontendState,
                backend: isMoved ? THERE : HERE,
                backendState: movedState ?? linkedState,
                linkedState,
                isOnline: (flags & 1) !== 0,
                sectors: (flags & 2) !== 0 ? '8' : '16',
                domid: (flags & 4) !== 0 ? 1 : 2,
              },
              link: state === 'idle' ? undefined : { backend: HERE, domid: 1 },
              goal,
              wasConnected: (flags & 8) !== 0,
              isReturnAwaited: (flags & 16) !== 0,
              isDrained: (flags & 32) !== 0,
              isTimeUp: (flags & 64) !== 0,
              isRetryDue: (flags & 128) !== 0,
              isNudgeDue: (flags & 2) !== 0,
              isFirstAttempt: (flags & 4) !== 0,
              knownSectors: '8',
              isHandedOut: (flags & 128) === 0,
              wereKeysSeen: (flags & 128) === 0,
            };
          }
        }
      }
    }
  }
}

for (const state of STATES) {
  void t.test(`every situation in ${state} has a step or waits`, (t) => {
    const events = new Set<FrontendEvent>();
    let count = 0;
    for (const situation of situations(state)) {
      count++;
      const event = interpret(situation);
      if (event === undefined) {
        continue;
      }
      events.add(event);
      const { to, finishedBecause } = transition(state, event);
      const { linkedState } = situation.observation;
      const mayLive = ENGAGED.has(linkedState) && event !== 'restored';
      // These two states only follow when there is no connection, or the last one is finished.
      const hasNone = state === 'idle' || state === 'initialising';
      if (mayLive && !hasNone && (to === 'initialising' || finishedBecause !== undefined)) {
        t.fail(`${event} -> ${to} with ${JSON.stringify(situation)}`);
        break;
      }
    }
    t.ok(count > 100_000);
    const unused = Object.keys(LIFE_CYCLE[state]).filter(
      (event) => !events.has(event as FrontendEvent),
    );
    t.same(unused, [], 'every row of the table is used');
    t.end();
  });
}
