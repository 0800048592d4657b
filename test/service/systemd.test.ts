/**
 * Goal: systemd takes the units as they are and judges them well guarded, the user exists, and the
 * daemon makes no system call that its unit refuses.
 * Method: systemd's own tools, offline, on installed units; strace on a daemon under load.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { makeFolder } from '../daemon/support/simulated.ts';
import { Daemon, runXenblkNbd } from '../support/daemon.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { findProgram, type ProgramResult, runProgram } from '../support/program.ts';

const ANALYZE = findProgram('systemd-analyze');
const STRACE = findProgram('strace');
const skip = ANALYZE === undefined ? 'systemd is not installed' : false;
/** Tenths: systemd calls all up to 2.0 OK, and ours are below. */
const EXPOSURE_MAX = 20;

const UNITS = [
  'xenblk-nbd@.service',
  'xenblk-nbd@.socket',
  'xenblk-nbd-take-over@.service',
  'xenblk-nbd-client@.service',
];

async function installed(t: Test): Promise<string> {
  const prefix = makeFolder(t);
  const result = await runXenblkNbd(['install-units', '--prefix', prefix]);
  t.equal(result.status, 0, result.stderr);
  return join(prefix, 'lib');
}

function analyze(...args: string[]): Promise<ProgramResult> {
  return runProgram(ANALYZE ?? '', args, { env: { SYSTEMD_PAGER: '', COLUMNS: '200' } });
}

async function verify(folder: string): Promise<string> {
  const units = UNITS.map((unit) => join(folder, unit.replace('@', '@xvdb')));
  const { status, stdout, stderr } = await analyze('verify', '--man=no', ...units);
  return status === 0 ? stdout + stderr : `exit code ${status}\n${stdout}${stderr}`;
}

void t.test('the units are understood', { skip }, async (t) => {
  const folder = join(await installed(t), 'systemd/system');
  t.equal(await verify(folder), '', 'nothing to say about them');
  const path = join(folder, 'xenblk-nbd@.service');
  writeFileSync(path, readFileSync(path, 'utf8').replace('Restart=', 'Rastert='));
  t.match(await verify(folder), /Rastert/, 'a mistake would have been seen');
});

void t.test('the services are well guarded', { skip }, async (t) => {
  const folder = join(await installed(t), 'systemd/system');
  const judge = (unit: string): Promise<ProgramResult> => {
    const args = ['security', '--offline=true', `--threshold=${EXPOSURE_MAX}`, join(folder, unit)];
    return analyze(...args);
  };
  for (const unit of UNITS.filter((name) => name.endsWith('.service'))) {
    const { status, stdout } = await judge(unit);
    t.equal(status, 0, /Overall exposure level.*/.exec(stdout)?.[0] ?? stdout);
  }
  writeFileSync(join(folder, 'open.service'), '[Service]\nExecStart=/bin/true\n');
  t.not((await judge('open.service')).status, 0, 'one that is open would have been seen');
});

void t.test('the user', { skip: skip || !findProgram('systemd-sysusers') }, async (t) => {
  const root = makeFolder(t);
  mkdirSync(join(root, 'usr/lib/sysusers.d'), { recursive: true });
  mkdirSync(join(root, 'etc'));
  const content = readFileSync(join(await installed(t), 'sysusers.d/xenblk-nbd.conf'));
  writeFileSync(join(root, 'usr/lib/sysusers.d/xenblk-nbd.conf'), content);
  const args = [`--root=${root}`, 'xenblk-nbd.conf'];
  const { status, stderr } = await runProgram(findProgram('systemd-sysusers') ?? '', args);
  t.equal(status, 0, stderr);
  t.match(readFileSync(join(root, 'etc/passwd'), 'utf8'), /^xenblk-nbd:x:.*:\/:.*nologin$/m);
  t.match(readFileSync(join(root, 'etc/group'), 'utf8'), /^xenblk-nbd:x:/m);
});

/** The system calls of each set, by name of the set. */
async function callSets(): Promise<(set: string) => ReadonlySet<string>> {
  const { stdout } = await analyze('syscall-filter');
  const sets = new Map<string, string[]>();
  let members: string[] = [];
  for (const line of stdout.split('\n')) {
    const word = line.trim();
    if (line.startsWith('@')) {
      members = [];
      sets.set(word, members);
    } else if (word !== '' && !word.startsWith('#')) members.push(word);
  }
  const expand = (set: string): ReadonlySet<string> =>
    new Set(
      (sets.get(set) ?? []).flatMap((name) => (name.startsWith('@') ? [...expand(name)] : [name])),
    );
  return expand;
}

/** Refused by the unit with EPERM, which is borne: V8 then does without protection keys. */
const REFUSED = ['pkey_alloc'];

const noTracer = skip || (STRACE === undefined ? 'strace is not installed' : false);

void t.test('the system calls that it makes are allowed', { skip: noTracer }, async (t) => {
  const unit = readFileSync(join(await installed(t), 'systemd/system/xenblk-nbd@.service'), 'utf8');
  const filters = [...unit.matchAll(/^SystemCallFilter=(.*)$/gm)].map((match) => match[1]);
  t.strictSame(filters, ['@system-service', '~@privileged @resources', 'sched_setscheduler']);
  const sets = await callSets();
  const allowed = new Set(sets('@system-service'));
  for (const set of ['@privileged', '@resources'])
    for (const call of sets(set)) allowed.delete(call);
  allowed.add('sched_setscheduler');
  t.ok(allowed.size > 200, `${allowed.size} calls are allowed`);

  const folder = makeFolder(t);
  const socket = join(folder, 'nbd.sock');
  const trace = join(folder, 'trace');
  // Detached (-D), so that signals reach the daemon, and refusing what the unit refuses.
  const inject = REFUSED.map((call) => `--inject=${call}:error=EPERM`);
  const runner = [STRACE ?? '', '-D', '-f', '-qq', '-o', trace, ...inject];
  const args = ['--simulate', '8M', '--unix', socket, '--metrics', join(folder, 'metrics.sock')];
  const daemon = await Daemon.start(args, runner);
  const { client } = await NbdClient.open({ path: socket });
  await client.write(0, Buffer.alloc(65_536, 1));
  await client.read(100, 65_000);
  await client.flush();
  await client.disconnect();
  await daemon.stop();
  t.ok(existsSync(trace));
  const made = new Set(
    readFileSync(trace, 'utf8')
      .split('\n')
      .flatMap((line) => /^\d+ +([a-z][a-z0-9_]*)\(/.exec(line)?.[1] ?? []),
  );
  t.ok(made.has('epoll_ctl') && made.has('eventfd2'), `${made.size} calls were seen`);
  const strange = [...made].filter((call) => !allowed.has(call) && !REFUSED.includes(call));
  t.strictSame(strange, [], 'none that the unit refuses');
  t.ok(allowed.has('ioctl'), 'nor the one that real Xen needs as well');
});
