// Goal: what a service manager is told, over a path and an abstract name: ready, status, stopping,
// and signs of life that stop when a lane does not move.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Supervisor } from '../../src/daemon/supervisor.ts';
import { Watchdog, type WatchedLane } from '../../src/daemon/watchdog.ts';
import { Counter, Counters } from '../../src/dataplane/index.ts';
import { closeFd } from '../../src/sys/index.ts';
import { XENBLK_NBD } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { bindDatagrams, takeDatagrams } from './support/raw-listener.ts';
import { makeFolder } from './support/simulated.ts';

function listen(t: Test, path: string): () => string[] {
  const fd = bindDatagrams(path);
  t.teardown(() => closeFd(fd));
  return () => takeDatagrams(fd);
}

void t.test('the variables', async (t) => {
  const env = {
    NOTIFY_SOCKET: '/run/x',
    WATCHDOG_USEC: '3000000',
    WATCHDOG_PID: String(process.pid),
    FDSTORE: '8',
    OTHER: 'stays',
  };
  const supervisor = new Supervisor(env, () => undefined);
  t.ok(supervisor.isPresent);
  t.equal(supervisor.watchdogMs, 3000);
  t.ok(supervisor.canStoreDescriptors);
  t.strictSame(env, { OTHER: 'stays' } as unknown, 'no program of ours speaks for us');
  const watched = (more: NodeJS.ProcessEnv): number | undefined =>
    new Supervisor({ NOTIFY_SOCKET: '/run/x', ...more }, () => undefined).watchdogMs;
  t.equal(watched({ WATCHDOG_USEC: '3000000', WATCHDOG_PID: '1' }), undefined);
  t.equal(watched({ WATCHDOG_USEC: '0' }), undefined);
  t.equal(watched({ WATCHDOG_USEC: 'soon' }), undefined);
  t.equal(watched({ WATCHDOG_USEC: '1500000' }), 1500);
  const none = new Supervisor({}, () => t.fail('nobody is there'));
  t.notOk(none.isPresent);
  t.notOk(none.storeDescriptors('x', []));
  none.ready('nobody listens');
});

void t.test('the messages', async (t) => {
  const path = join(makeFolder(t), 'notify');
  for (const where of [path, `@xenblk-nbd-test-${process.pid}`]) {
    const taken = listen(t, where);
    const supervisor = new Supervisor({ NOTIFY_SOCKET: where, FDSTORE: '1' }, () => t.fail());
    supervisor.ready('serving xvda\nREADY=0');
    supervisor.status('one line');
    supervisor.alive();
    supervisor.stopping();
    t.strictSame(taken(), [
      'READY=1\nSTATUS=serving xvda READY=0',
      'STATUS=one line',
      'WATCHDOG=1',
      'STOPPING=1',
    ]);
    t.ok(supervisor.storeDescriptors('name', [0, 1, 2]));
    t.strictSame(taken(), ['FDSTORE=1\nFDNAME=name\nFDPOLL=0']);
  }
});

void t.test('a service manager that is gone is told of once', async (t) => {
  const reasons: string[] = [];
  const env = { NOTIFY_SOCKET: join(makeFolder(t), 'gone') };
  const supervisor = new Supervisor(env, (reason) => reasons.push(reason));
  supervisor.alive();
  supervisor.alive();
  t.equal(reasons.length, 1);
  t.match(reasons[0], /gone: no such file or directory \(ENOENT\)/);
});

void t.test('a daemon under a service manager', async (t) => {
  const folder = makeFolder(t);
  const taken = listen(t, join(folder, 'notify'));
  const socket = join(folder, 'nbd.sock');
  const serve = ['serve', '--simulate', '64M', '--unix', socket, '--log-level', 'error'];
  const child = spawn(process.execPath, [XENBLK_NBD, ...serve], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, NOTIFY_SOCKET: join(folder, 'notify'), WATCHDOG_USEC: '400000' },
  });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const messages: string[] = [];
  const told = (what: RegExp): Promise<string> =>
    eventually(`${what}`, 30_000, () => {
      messages.push(...taken());
      return messages.find((message) => what.test(message));
    });
  t.equal(await told(/^READY/), 'READY=1\nSTATUS=serving xvda (64 MiB) to 0 clients');
  const { client } = await NbdClient.open({ path: socket });
  await told(/^STATUS=serving xvda \(64 MiB\) to 1 client$/);
  messages.length = 0;
  for (let signs = 0; signs < 3; signs++) {
    await told(/^WATCHDOG=1$/);
    messages.length = 0;
  }
  await client.disconnect();
  child.kill('SIGTERM');
  await told(/^STOPPING=1$/);
  t.equal(await ended, 0);
});

/** A lane that turns when it is woken, while it can. */
class FakeLane implements WatchedLane {
  readonly counters = new Counters();
  isStuck = false;

  wake(): void {
    if (!this.isStuck) this.counters.add(Counter.TURNS, 1);
  }
}

void t.test('a lane that is stuck', async (t) => {
  const lanes = [new FakeLane(), new FakeLane()];
  const seen: string[] = [];
  const watchdog = new Watchdog({
    timeoutMs: 2 ** 30,
    lanes: () => lanes,
    onAlive: () => seen.push('alive'),
    onStuck: () => seen.push('stuck'),
  });
  const look = (count: number): string[] => {
    for (let i = 0; i < count; i++) watchdog.look();
    return seen.splice(0);
  };
  t.strictSame(look(3), ['alive', 'alive', 'alive'], 'idle lanes are woken');
  const [, second] = lanes;
  if (second !== undefined) second.isStuck = true;
  t.strictSame(look(3), ['alive', 'stuck'], 'said once, and no more signs of life');
  if (second !== undefined) second.isStuck = false;
  t.strictSame(look(2), ['alive'], 'back again');
  lanes.push(new FakeLane());
  t.strictSame(look(2), ['alive', 'alive'], 'a new lane');
  watchdog.stop();
});
