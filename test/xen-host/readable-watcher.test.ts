/**
 * Goal: descriptors that libuv does not take are told to be readable, and a process that waits for
 * one can always exit.
 * Method: named pipes, opened non-blocking as /dev/xen/xenbus is; programs of their own for exits.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { watchReadable } from '../../src/sys/index.ts';
import { EpollWaiter } from '../../src/xen/epoll-waiter.ts';

function namedPipe(test: { teardown(action: () => void): unknown }): number {
  const folder = mkdtempSync(join(tmpdir(), 'pipe-'));
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  test.teardown(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
  return fd;
}

function drain(fd: number): string {
  const buffer = Buffer.alloc(64);
  return buffer.toString('latin1', 0, readSync(fd, buffer));
}

void t.test('tells once, and again after rearm', async (t) => {
  const fd = namedPipe(t);
  const seen: string[] = [];
  let onSeen = (): void => {};
  const watch = watchReadable(fd, () => {
    seen.push(drain(fd));
    onSeen();
  });
  const next = (): Promise<void> => new Promise((resolve) => (onSeen = resolve));

  let told = next();
  writeSync(fd, 'one');
  await told;
  writeSync(fd, 'two');
  await sleep(20);
  t.same(seen, ['one'], 'disarmed until it is asked for');
  told = next();
  watch.rearm();
  await told;
  t.same(seen, ['one', 'two'], 'what came meanwhile is told at once');
  watch.stop();
  watch.rearm();
  writeSync(fd, 'three');
  await sleep(20);
  t.same(seen, ['one', 'two'], 'stopped for good');
});

void t.test('several descriptors, stopped from within the call', async (t) => {
  const fds = Array.from({ length: 20 }, () => namedPipe(t));
  const told = fds.map(
    (fd) =>
      new Promise<number>((resolve) => {
        const watch = watchReadable(fd, () => {
          watch.stop();
          resolve(fd);
        });
      }),
  );
  for (const fd of fds.toReversed()) writeSync(fd, 'x');
  t.same(await Promise.all(told), fds);
});

void t.test('the waiter of the XenStore client', async (t) => {
  const fd = namedPipe(t);
  const waiter = new EpollWaiter();
  for (const word of ['one', 'two', 'three']) {
    const told = new Promise<void>((resolve) => waiter.wait(fd, resolve));
    writeSync(fd, word);
    await told;
    t.equal(drain(fd), word);
  }
  waiter.wait(fd, () => t.fail('closed'));
  waiter.close();
  waiter.close();
  writeSync(fd, 'four');
  await sleep(20);
});

const watcherUrl = JSON.stringify(new URL('../../src/sys/index.js', import.meta.url).href);

/** Runs `body` with a watched pipe `fd`; gives how the process ended. */
function runProgram(body: string): { code: number | null; isTimedOut: boolean; stdout: string } {
  const program = `
    import { constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
    import { execFileSync } from 'node:child_process';
    import { watchReadable } from ${watcherUrl};
    const folder = mkdtempSync('/tmp/pipe-');
    execFileSync('mkfifo', [folder + '/pipe']);
    const fd = openSync(folder + '/pipe', constants.O_RDWR | constants.O_NONBLOCK);
    rmSync(folder, { recursive: true });
    ${body}`;
  const args = ['--input-type=module', '--eval', program];
  const { status, error, stdout } = spawnSync(process.execPath, args, {
    timeout: 60_000,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
  });
  return { code: status, isTimedOut: error !== undefined, stdout };
}

void t.test('process.exit while a thread waits', async (t) => {
  const ended = runProgram('watchReadable(fd, () => {}); setTimeout(() => process.exit(5), 100);');
  t.same(ended, { code: 5, isTimedOut: false, stdout: '' });
});

void t.test('an uncaught error while a thread waits', async (t) => {
  const ended = runProgram('watchReadable(fd, () => {}); setTimeout(() => { throw 1 }, 100);');
  t.equal(ended.code, 1);
});

void t.test('an error in the call is an uncaught error', async (t) => {
  const ended = runProgram(
    "watchReadable(fd, () => { throw new Error('x') }); writeSync(fd, '1');",
  );
  t.notOk(ended.isTimedOut);
  t.not(ended.code, 0);
});

void t.test('a watch keeps the process alive, a stopped one does not', async (t) => {
  const stopped = runProgram(
    'const watch = watchReadable(fd, () => {}); setTimeout(() => watch.stop(), 100);' +
      "process.on('exit', () => console.log('end'));",
  );
  t.same(stopped, { code: 0, isTimedOut: false, stdout: 'end\n' });
  const told = runProgram(
    "const watch = watchReadable(fd, () => { console.log('told'); watch.stop(); });" +
      "setTimeout(() => writeSync(fd, '1'), 100).unref();",
  );
  t.same(told, { code: 0, isTimedOut: false, stdout: 'told\n' });
});
