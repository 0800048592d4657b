// Goal: BLOCK_STATUS tells of zeroes that the daemon has written itself, in both forms of headers,
// on every lane, and of nothing else; and forgets them when the backend restarts.
// Method: the independent client of test/support, on a simulated disk with two queues.
import t from 'tap';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { CmdFlag, Errno } from '../support/nbd-wire.ts';
import { StatusClient } from '../support/status-client.ts';
import { loggedSoon, startSimulated } from './support/simulated.ts';

const KIB = 1024;
const CHUNK = 64 * KIB;
const SIZE = 8 * KIB * KIB;
const ZERO = 2;
const TWO_LANES = ['--queues', '2', '--simulate-features', 'queues=2,ring-page-order=0,discard'];

for (const isExtended of [false, true]) {
  const form = isExtended ? 'extended headers' : 'structured replies';
  void t.test(`what was zeroed is zero for all, ${form}`, async (t) => {
    const { daemon, socket } = await startSimulated(t, TWO_LANES);
    const address = { path: socket };
    // Clients go to the lane with the fewest, so these two are on different lanes.
    const one = await StatusClient.open(address, isExtended);
    const { client: other } = await NbdClient.open(address);
    t.strictSame(await one.status(0, SIZE), [[SIZE, 0]], 'nothing is known at first');
    t.equal((await other.writeZeroes(0, 4 * CHUNK)).error, Errno.OK);
    t.strictSame(
      await one.status(0, SIZE),
      [
        [4 * CHUNK, ZERO],
        [SIZE - 4 * CHUNK, 0],
      ],
      'zeroed by the other lane',
    );
    t.strictSame(await one.status(CHUNK + 1, 10), [[10, ZERO]], 'cut to what was asked for');
    t.strictSame(await one.status(0, SIZE, CmdFlag.REQ_ONE), [[4 * CHUNK, ZERO]], 'REQ_ONE');
    t.equal((await other.write(2 * CHUNK + 5, Buffer.from([1]))).error, Errno.OK);
    t.strictSame(
      await one.status(0, SIZE),
      [
        [2 * CHUNK, ZERO],
        [CHUNK, 0],
        [CHUNK, ZERO],
        [SIZE - 4 * CHUNK, 0],
      ],
      'one byte of data',
    );
    t.equal((await other.trim(0, CHUNK)).error, Errno.OK);
    t.strictSame(await one.status(0, CHUNK), [[CHUNK, 0]], 'a discard promises no zeroes');
    t.equal(await one.writeZeroes(0, SIZE), Errno.OK);
    t.strictSame(await one.status(0, SIZE), [[SIZE, ZERO]]);
    t.equal((await other.write(SIZE - 1, Buffer.from([1]))).error, Errno.OK);
    t.equal(
      (await other.readOk(0, SIZE)).findIndex((byte) => byte !== 0),
      SIZE - 1,
    );
    one.close();
    await other.disconnect();
    await daemon.stop();
  });

  void t.test(`a map in many pieces comes in one reply, ${form}`, async (t) => {
    const { daemon, socket } = await startSimulated(t, [], '64M');
    const size = 8 * SIZE;
    const one = await StatusClient.open({ path: socket }, isExtended);
    const { client: other } = await NbdClient.open({ path: socket });
    t.equal(await one.writeZeroes(0, size), Errno.OK);
    const count = size / CHUNK / 2;
    const byte = Buffer.from([1]);
    await Promise.all(
      Array.from({ length: count }, (_, index) => other.write((2 * index + 1) * CHUNK, byte)),
    );
    const pieces = Array.from({ length: 2 * count }, (_, index) => [
      CHUNK,
      index % 2 === 0 ? ZERO : 0,
    ]);
    t.strictSame(await one.status(0, size), pieces);
    one.close();
    await other.disconnect();
    await daemon.stop();
  });
}

void t.test('a restart of the backend makes all unknown', async (t) => {
  const { daemon, socket } = await startSimulated(t, [
    ...TWO_LANES,
    '--simulate-faults',
    'restart=3',
  ]);
  const one = await StatusClient.open({ path: socket }, true);
  t.equal(await one.writeZeroes(0, SIZE), Errno.OK);
  t.strictSame(await one.status(0, SIZE), [[SIZE, ZERO]]);
  await loggedSoon(daemon, 'recovery-ended');
  const [[length, flags] = []] = await one.status(0, SIZE);
  t.strictSame([length, flags], [SIZE, 0]);
  await eventually('it is known again', 30_000, async () => {
    if ((await one.writeZeroes(0, SIZE)) !== Errno.OK) return undefined;
    const [[, again] = []] = await one.status(0, SIZE);
    return again === ZERO ? true : undefined;
  });
  one.close();
  await daemon.stop();
});
