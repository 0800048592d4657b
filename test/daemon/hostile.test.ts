// Goal: each kind of lie of a backend ends in one line of the log and in EIO for the clients of its
// vbd, and in nothing for those of another vbd beside it; what is no lie but a nuisance, a storm of
// events or pages that are written late, ends in nothing at all.
// Method: the daemon's parts on a simulated host with one backend that lies with every answer.
import t, { type Test } from 'tap';
import { NO_FAULTS, RingLie } from '../../src/sim/index.ts';
import { eventually } from '../support/eventually.ts';
import type { NbdClient } from '../support/nbd-client.ts';
import { Errno } from '../support/nbd-wire.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { type InProcess, startInProcess } from './support/in-process.ts';
import { ShadowDisk } from './support/shadow-disk.ts';

const MIB = 2 ** 20;
const seed = runSeed();
t.comment(`SEED=${seed}`);

/** xvda lies, xvdb is honest and in use all the time. */
async function beside(
  t: Test,
  lie: RingLie,
  trouble: (served: InProcess) => Promise<void>,
): Promise<InProcess> {
  const served = await startInProcess(t, {
    disks: [
      { vbd: 'xvda', sizeBytes: 4 * MIB, hostility: { rate: 1, lies: [lie] } },
      { vbd: 'xvdb', sizeBytes: 4 * MIB },
    ],
    faults: { ...NO_FAULTS, seed },
  });
  const bystander = new ShadowDisk(await served.open('xvdb'), new SeededRandom(seed), 0, MIB);
  let isOver = false;
  const working = bystander.work(() => isOver);
  working.catch(() => undefined);
  await trouble(served);
  const before = bystander.requestCount;
  await eventually('the other vbd is served', 30_000, () =>
    bystander.requestCount > before + 100 ? true : undefined,
  );
  isOver = true;
  await working;
  await bystander.verify();
  t.strictSame(served.failures, []);
  return served;
}

/** Scattered, so that each is a request of its own, and with pages that others have used. */
function readMany(client: NbdClient): Promise<{ error: number }>[] {
  return Array.from({ length: 16 }, (_, index) => client.read((15 - index) * 65_536, 4096));
}

const FAULTS: readonly (readonly [RingLie, RegExp])[] = [
  [RingLie.WRONG_ID, /answered request \S+, which is not in flight/],
  [RingLie.REPEATED_ID, /answered request \S+, which is not in flight/],
  [RingLie.UNKNOWN_STATUS, /unknown status -?\d+/],
  [RingLie.WRONG_OPERATION, /answered operation 1 to a request for 0/],
  [RingLie.PRODUCER_AHEAD, /published more responses than there were requests/],
  [RingLie.PRODUCER_BACK, /published more responses than there were requests/],
];

for (const [lie, fault] of FAULTS) {
  void t.test(lie, async (t) => {
    const served = await beside(t, lie, async ({ open, logged }) => {
      const [client, other] = [await open('xvda'), await open('xvda')];
      const reads: Promise<{ error: number }>[] = [];
      await eventually('it is found out', 30_000, () => {
        reads.push(...readMany(client));
        return logged('backend-broken').length > 0 ? true : undefined;
      });
      const errors = new Set((await Promise.all(reads)).map(({ error }) => error));
      t.ok(errors.has(Errno.EIO));
      errors.delete(Errno.EIO);
      errors.delete(Errno.OK);
      t.strictSame([...errors], []);
      const late = await open('xvda');
      for (const one of [client, other, late]) {
        t.equal((await one.read(0, 512)).error, Errno.EIO);
        t.equal((await one.write(1, Buffer.alloc(5000, 1))).error, Errno.EIO);
        t.equal((await one.writeZeroes(0, 4096)).error, Errno.EIO);
        t.equal((await one.trim(0, 65_536)).error, Errno.EIO);
        t.equal((await one.flush()).error, Errno.EIO);
        await one.disconnect();
      }
    });
    const lines = served.logged('backend-broken');
    t.equal(lines.length, 1, 'told once');
    t.match(lines[0], { level: 'error', details: { vbd: 'xvda', fault }, message: fault });
  });
}

for (const nuisance of [RingLie.EVENT_STORM, RingLie.LATE_WRITE]) {
  void t.test(nuisance, async (t) => {
    const served = await beside(t, nuisance, async ({ open }) => {
      const client = await open('xvda');
      for (let round = 0; round < 8; round++) {
        const replies = await Promise.all(readMany(client));
        t.ok(replies.every(({ error }) => error === Errno.OK));
        t.equal((await client.write(round * 4096, Buffer.alloc(4096, round))).error, Errno.OK);
      }
      t.equal((await client.flush()).error, Errno.OK);
      await client.disconnect();
    });
    t.strictSame(served.logged('backend-broken'), []);
  });
}
