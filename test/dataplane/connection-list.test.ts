/**
 * Goal: the list gives each connection that was pushed once, in its order, keeps none that was
 * taken, and can be filled again as often as there are turns.
 * Method: two lists that change places, as in a lane, against an array.
 */
import { createExportInfo } from 'nbd-server-ts/protocol';
import t from 'tap';
import { ConnectionList } from '../../src/dataplane/connection-list.ts';
import { NbdConnection } from '../../src/dataplane/nbd-connection.ts';
import { createCore, createEngine, createRing, SIMPLE } from '../sim-histories/quiet-ring.ts';
import { runSeed, SeededRandom } from '../support/random.ts';

const info = createExportInfo({ sizeBytes: 1 << 20 });
const { engine } = createEngine(createRing().config);
const core = createCore(engine, { takeOperation: () => undefined });
const connections = Array.from(
  { length: 40 },
  (_, id) => new NbdConnection(core, id, -1, info, SIMPLE),
);

/** Takes all of a list, and leaves it empty. */
function takeAll(list: ConnectionList): (NbdConnection | undefined)[] {
  const taken = Array.from({ length: list.count }, (_, index) => list.take(index));
  list.count = 0;
  return taken;
}

void t.test('nothing is in it at first', async (t) => {
  const list = new ConnectionList();
  t.equal(list.count, 0);
  t.equal(list.take(0), undefined);
});

void t.test('turns of any size', async (t) => {
  const seed = runSeed();
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  let now = new ConnectionList();
  let next = new ConnectionList();
  for (let turn = 0; turn < 500; turn++) {
    const pushed = Array.from({ length: random.below(41) }, () => random.pick(connections));
    for (const connection of pushed) next.push(connection);
    [now, next] = [next, now];
    t.equal(now.count, pushed.length);
    t.ok(takeAll(now).every((connection, index) => connection === pushed[index]));
  }
});

void t.test('what is pushed while a list is taken stands behind the rest', async (t) => {
  const [a, b] = connections;
  if (a === undefined || b === undefined) throw new Error('There are no connections.');
  const list = new ConnectionList();
  list.push(a);
  t.equal(list.take(0), a);
  list.push(b);
  t.equal(list.count, 2);
  t.equal(list.take(1), b);
});

void t.test('a connection that was taken is not held', async (t) => {
  const list = new ConnectionList();
  for (const connection of connections) list.push(connection);
  takeAll(list);
  for (let index = 0; index < connections.length; index++) t.equal(list.take(index), undefined);
});
