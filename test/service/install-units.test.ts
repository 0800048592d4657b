/**
 * Goal: the files of the service land where they belong, start this very program, are never lost to
 * somebody's changes, and `--dry-run` writes nothing.
 */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { makeFolder } from '../daemon/support/simulated.ts';
import { runXenblkNbd, XENBLK_NBD } from '../support/daemon.ts';

const FILES = [
  'sysusers.d/xenblk-nbd.conf',
  'udev/rules.d/90-xenblk-nbd.rules',
  'modules-load.d/xenblk-nbd.conf',
  'modprobe.d/xenblk-nbd.conf',
  'systemd/system/xenblk-nbd@.socket',
  'systemd/system/xenblk-nbd@.service',
  'systemd/system/xenblk-nbd-take-over@.service',
  'systemd/system/xenblk-nbd-client@.service',
];

void t.test('into a prefix', async (t) => {
  const prefix = makeFolder(t);
  const dry = await runXenblkNbd(['install-units', '--prefix', prefix, '--dry-run']);
  t.equal(dry.status, 0, dry.stderr);
  t.notOk(existsSync(join(prefix, 'lib')), 'nothing is written');
  for (const file of FILES) t.ok(dry.stdout.includes(`# ${prefix}/lib/${file} (new)\n`), file);

  const first = await runXenblkNbd(['install-units', '--prefix', prefix]);
  t.equal(first.status, 0, first.stderr);
  t.equal(first.stdout, FILES.map((file) => `written  ${prefix}/lib/${file}\n`).join(''));
  for (const file of FILES) t.equal(statSync(join(prefix, 'lib', file)).mode & 0o777, 0o644);
  const unit = readFileSync(join(prefix, 'lib/systemd/system/xenblk-nbd@.service'), 'utf8');
  const start = `ExecStart=${process.execPath} ${XENBLK_NBD} serve %I --metrics `;
  t.ok(unit.includes(start), `it starts this program: ${start}`);
  t.notMatch(unit, '/usr/bin/xenblk-nbd');

  const again = await runXenblkNbd(['install-units', '--prefix', prefix]);
  t.equal(again.stdout, FILES.map((file) => `unchanged  ${prefix}/lib/${file}\n`).join(''));
});

void t.test('what somebody changed stays', async (t) => {
  const prefix = makeFolder(t);
  const path = join(prefix, 'lib/modprobe.d/xenblk-nbd.conf');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, 'options xen-gntalloc limit=64\n');
  const refused = await runXenblkNbd(['install-units', '--prefix', prefix]);
  t.equal(refused.status, 1);
  t.equal(
    refused.stderr,
    `xenblk-nbd: ${path} differs from what would be written: see --dry-run, and give --force to overwrite\n`,
  );
  t.notOk(existsSync(join(prefix, 'lib/systemd')), 'and nothing else is written');
  const forced = await runXenblkNbd(['install-units', '--prefix', prefix, '--force']);
  t.equal(forced.status, 0, forced.stderr);
  t.match(readFileSync(path, 'utf8'), /limit=8192/);
});

void t.test('another command', async (t) => {
  const prefix = makeFolder(t);
  const args = ['install-units', '--prefix', prefix, '--command'];
  t.match(await runXenblkNbd([...args, 'xenblk-nbd']), { status: 2, stderr: /path from the root/ });
  const { status } = await runXenblkNbd([...args, '/usr/bin/xenblk-nbd']);
  t.equal(status, 0);
  const unit = readFileSync(join(prefix, 'lib/systemd/system/xenblk-nbd@.service'), 'utf8');
  t.match(unit, 'ExecStart=/usr/bin/xenblk-nbd serve %I');
});

void t.test('a folder that cannot be written', async (t) => {
  const prefix = join(makeFolder(t), 'file');
  writeFileSync(prefix, '');
  const { status, stderr } = await runXenblkNbd(['install-units', '--prefix', prefix]);
  t.equal(status, 1);
  t.match(stderr, /^xenblk-nbd: cannot write .*sysusers.d\/xenblk-nbd.conf: ENOTDIR.*\n$/);
});
