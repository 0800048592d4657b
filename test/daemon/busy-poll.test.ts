// Goal: while lane and backend look for work, requests and responses need no events; told not to,
// each of them sleeps and is woken.
// Method: reads one after the other, and the lane's own counts. Where the machine is so full that
// they stop looking for a while, another round is counted.
import t, { type Test } from 'tap';
import { Counter } from '../../src/dataplane/index.ts';
import { eventually } from '../support/eventually.ts';
import { startInProcess } from './support/in-process.ts';

const READS = 200;

/** What it returns makes a round of reads, and tells how many events were sent and came. */
async function start(t: Test, busyPollUs: number) {
  const disks = [{ vbd: 'xvda', sizeBytes: 1 << 20 }];
  const served = await startInProcess(t, { disks, busyPollUs }, { busyPollUs });
  const client = await served.open('xvda');
  const count = (counter: Counter): number =>
    served.vbds.devices[0]?.lanes[0]?.counters.get(counter) ?? Number.NaN;
  return async () => {
    const sent = count(Counter.RING_NOTIFICATIONS);
    const came = count(Counter.RING_EVENTS);
    for (let read = 0; read < READS; read++) {
      if ((await client.read(read * 4096, 4096)).error !== 0) throw new Error('a read failed');
    }
    return {
      sent: count(Counter.RING_NOTIFICATIONS) - sent,
      came: count(Counter.RING_EVENTS) - came,
    };
  };
}

void t.test('threads that look need hardly any events', async (t) => {
  const round = await start(t, 10_000);
  const { sent, came } = await eventually('a round without sleep', 60_000, async () => {
    const events = await round();
    return events.sent < READS / 4 && events.came < READS / 4 ? events : undefined;
  });
  t.comment(`${READS} reads: ${sent} events sent, ${came} came`);
});

void t.test('threads that sleep at once need them', async (t) => {
  const round = await start(t, 0);
  const { sent, came } = await round();
  t.ok(sent > READS / 2, `${sent} sent`);
  t.ok(came > READS / 2, `${came} came`);
});
