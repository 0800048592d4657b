// Goal: a daemon that is stopped refuses what comes later in the words of the protocol, answers
// what it had accepted, and is not kept by clients that do not move. A second signal is the last.
import { join } from 'node:path';
import t from 'tap';
import { NO_FAULTS } from '../../src/sim/index.ts';
import { Daemon } from '../support/daemon.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, Errno, Opt, Rep, requestHeader } from '../support/nbd-wire.ts';
import { startInProcess } from './support/in-process.ts';
import { loggedSoon, makeFolder, startSimulated } from './support/simulated.ts';

const MIB = 2 ** 20;

void t.test('ERR_SHUTDOWN in the handshake, answers to what was accepted', async (t) => {
  const faults = ['--simulate-faults', 'delay=3000'];
  const { daemon, socket, open } = await startSimulated(t, faults);
  const busy = await open();
  const asking = await NbdClient.connect({ path: socket });
  await asking.greet();
  t.equal((await asking.option(Opt.LIST)).pop()?.type, Rep.ACK);
  const reads = Array.from({ length: 20 }, (_, i) => busy.read(i * 65_536, 4096));
  // They are in the lane when a later client has come and gone.
  await (await open()).disconnect();
  daemon.kill('SIGTERM');
  await loggedSoon(daemon, 'stopping');
  t.equal((await asking.option(Opt.LIST)).pop()?.type, Rep.ERR_SHUTDOWN);
  for (const { error } of await Promise.all(reads)) t.equal(error, Errno.OK);
  await busy.bytes.receiveEnd();
  await asking.bytes.receiveEnd();
  t.equal((await daemon.waitForEnd()).status, 0);
});

void t.test('a request that comes while the last ones are finished gets ESHUTDOWN', async (t) => {
  const served = await startInProcess(t, {
    disks: [{ vbd: 'xvda', sizeBytes: MIB }],
    faults: { ...NO_FAULTS, seed: 1, delayMs: 2000 },
  });
  const client = await served.open();
  const first = Array.from({ length: 20 }, (_, i) => client.write(i * 8192, Buffer.alloc(512, 1)));
  // Answered at once, by a lane that has the writes before it.
  t.equal((await client.read(0, 0)).error, Errno.OK);
  const closed = served.vbds.close(20_000);
  const late: number[] = [];
  for (let i = 0; i < 50 && late.at(-1) !== Errno.ESHUTDOWN; i++) {
    late.push((await client.read(0, 0)).error);
  }
  t.equal(late.at(-1), Errno.ESHUTDOWN);
  t.equal((await client.write(0, Buffer.alloc(5000, 2))).error, Errno.ESHUTDOWN);
  t.equal((await client.flush()).error, Errno.ESHUTDOWN);
  for (const { error } of await Promise.all(first)) t.equal(error, Errno.OK);
  await client.bytes.receiveEnd();
  await closed;
  t.equal(served.logged('drain-timeout').length, 0);
});

void t.test('clients that do not move keep it for a bounded time', async (t) => {
  const { daemon, open } = await startSimulated(t);
  const [half, deaf, silent] = [await open(), await open(), await open()];
  half.bytes.send(requestHeader({ type: Cmd.WRITE, offset: 0, payload: Buffer.alloc(4096) }, 1n));
  deaf.bytes.pause();
  const reads = Array.from({ length: 100 }, () => deaf.read(0, MIB).catch(() => undefined));
  await (await open()).disconnect();
  const begunMs = performance.now();
  daemon.kill('SIGTERM');
  t.equal((await daemon.waitForEnd(60_000)).status, 0);
  const tookMs = performance.now() - begunMs;
  t.ok(tookMs < 45_000, `${tookMs} ms`);
  deaf.bytes.destroy();
  await Promise.all(reads);
  await half.bytes.receiveEnd();
  await silent.bytes.receiveEnd();
});

void t.test('a second signal ends it at once', async (t) => {
  const socket = join(makeFolder(t), 'nbd.sock');
  const args = ['--simulate', '8M', '--unix', socket, '--simulate-faults', 'delay=60000'];
  const daemon = await Daemon.start(args);
  t.teardown(() => daemon.kill('SIGKILL'));
  const { client } = await NbdClient.open({ path: socket });
  const reads = Array.from({ length: 20 }, (_, i) =>
    client.read(i * 65_536, 4096).catch(() => undefined),
  );
  await (await NbdClient.open({ path: socket })).client.disconnect();
  const begunMs = performance.now();
  daemon.kill('SIGTERM');
  await loggedSoon(daemon, 'stopping');
  daemon.kill('SIGTERM');
  const { status } = await daemon.waitForEnd(30_000);
  t.not(status, 0);
  t.ok(performance.now() - begunMs < 5000);
  await Promise.all(reads);
});
