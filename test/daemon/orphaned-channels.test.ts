// Goal: descriptors that must never be closed outlive this process, in a holder that ignores
// signals; a service manager that stores descriptors is given them; and without anybody to hold
// them the process says that it must not end.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { LogDetails, Logger } from '../../src/daemon/log.ts';
import { ORPHAN_FDNAME, OrphanedChannels } from '../../src/daemon/orphaned-channels.ts';
import { Supervisor } from '../../src/daemon/supervisor.ts';
import { closeFd, createEventFd } from '../../src/sys/index.ts';
import { ROOT } from '../house/source-files.ts';
import { eventually } from '../support/eventually.ts';
import { bindDatagrams, takeDatagrams } from './support/raw-listener.ts';
import { makeFolder } from './support/simulated.ts';

interface Line {
  readonly event: string;
  readonly details: LogDetails;
  readonly message: string;
}

function recordingLog(): { log: Logger; lines: Line[] } {
  const lines: Line[] = [];
  const record = (event: string, details: LogDetails, message: string): void => {
    lines.push({ event, details, message });
  };
  return { log: { debug: record, info: record, warn: record, error: record }, lines };
}

function killLater(t: Test, pid: number): void {
  t.teardown(() => {
    // The shell and what it sleeps with are a group of their own.
    process.kill(-pid, 'SIGKILL');
  });
}

/** What the descriptors of a process are, in the words of /proc/PID/fd. */
function openFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).map((fd) => readlinkSync(join(folder, fd)));
}

void t.test('a holder', async (t) => {
  const { log, lines } = recordingLog();
  const orphans = new OrphanedChannels(new Supervisor({}, () => undefined), log);
  t.ok(orphans.mayExit);
  const fds = [createEventFd(), createEventFd()];
  const kept = orphans.keep(fds);
  t.notOk(orphans.mayExit, 'not before there is a holder');
  await kept;
  t.ok(orphans.mayExit);
  t.equal(lines.length, 1);
  t.match(lines[0]?.message, /2 event channels of before must never be closed.*process \d+ holds/);
  const pid = Number(lines[0]?.details['holder']);
  killLater(t, pid);
  const eventFds = openFiles(pid).filter((name) => name === 'anon_inode:[eventfd]');
  t.equal(eventFds.length, 2, 'it has both');
  await eventually('it sleeps', 30_000, () =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim() === '' ? undefined : true,
  );
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(-pid, signal);
  const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  t.ok(commandLine.startsWith('@'), 'systemd is asked to spare it at shutdown');
  for (const fd of fds) closeFd(fd);
});

function moduleUrl(name: string): string {
  return new URL(`../../src/${name}.js`, import.meta.url).href;
}

void t.test('it outlives the process', async (t) => {
  const script = `
    import { OrphanedChannels } from '${moduleUrl('daemon/orphaned-channels')}';
    import { Supervisor } from '${moduleUrl('daemon/supervisor')}';
    import { createEventFd } from '${moduleUrl('sys/index')}';
    const warn = (event, details) => console.log(details.holder);
    const orphans = new OrphanedChannels(new Supervisor({}, () => undefined), { warn, error: warn });
    await orphans.keep([createEventFd()]);
  `;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    cwd: fileURLToPath(new URL('.', import.meta.url)),
  });
  const pid = Number(stdout);
  t.ok(pid > 1, stdout);
  killLater(t, pid);
  t.ok(openFiles(pid).includes('anon_inode:[eventfd]'));
});

void t.test('a service manager that stores descriptors', async (t) => {
  const path = join(makeFolder(t), 'notify');
  const socket = bindDatagrams(path);
  const { log, lines } = recordingLog();
  const supervisor = new Supervisor({ NOTIFY_SOCKET: path, FDSTORE: '8' }, () => t.fail());
  const orphans = new OrphanedChannels(supervisor, log);
  const fd = createEventFd();
  await orphans.keep([fd]);
  t.match(takeDatagrams(socket)[0], new RegExp(`^FDSTORE=1\nFDNAME=${ORPHAN_FDNAME}\n`));
  t.equal(lines[0]?.details['isStored'], true);
  killLater(t, Number(lines[0]?.details['holder']));
  // What the manager hands to the next process is held by the manager.
  const next = new OrphanedChannels(new Supervisor({}, () => undefined), log);
  next.inherit([fd]);
  t.ok(next.mayExit);
  closeFd(fd);
  closeFd(socket);
});

void t.test('a holder that could not leave the control group of the service', async (t) => {
  const start = async (): Promise<{ pid: number; isOutside: boolean }> => ({
    pid: 4711,
    isOutside: false,
  });
  const eventsUnder = async (env: NodeJS.ProcessEnv): Promise<string[]> => {
    const { log, lines } = recordingLog();
    const fd = createEventFd();
    await new OrphanedChannels(new Supervisor(env, () => undefined), log, start).keep([fd]);
    closeFd(fd);
    return lines.map(({ event }) => event);
  };
  const service = { NOTIFY_SOCKET: '/run/nobody' };
  t.strictSame(await eventsUnder(service), ['channels-orphaned', 'holder-in-service']);
  const sparing = { ...service, XENBLK_NBD_KILL_MODE: 'process' };
  t.strictSame(await eventsUnder(sparing), ['channels-orphaned'], 'our unit spares it');
  t.strictSame(await eventsUnder({}), ['channels-orphaned'], 'nobody stops a service');
  const unit = readFileSync(join(ROOT, 'systemd/xenblk-nbd@.service'), 'utf8');
  t.match(unit, /^KillMode=process$/m);
  t.match(unit, /^Environment=XENBLK_NBD_KILL_MODE=process$/m, 'the two belong together');
});
