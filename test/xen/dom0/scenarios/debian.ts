/**
 * The README, typed into a fresh Debian that runs under systemd: from nothing to a mounted file
 * system, which comes back after a restart of the guest, lives through restarts of its server
 * under load, is clean after a shutdown, with the vbd closed, and leaves nothing after a purge.
 *
 * What is typed is what README.md has in its code blocks; only questions are asked beside it.
 */
import { match, notStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { eventually, run } from '../commands.ts';
import { DebianGuest } from '../debian-guest.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { storeRead } from '../store.ts';

export const debian: Scenario = {
  name: 'the README typed into a Debian under systemd: mounted, restarted under load, purged',
  timeoutMs: 1_500_000,
  run: typeReadme,
};

const README = '/usr/share/lab/README.md';
const DISK = '/tmp/debian-xvdb.img';
const SHUTDOWN_MS = 240_000;
const LOAD_MS = 240_000;

/** Lines of the code blocks below a heading that begin with one of `words`, without comments. */
function readmeCommands(heading: string, ...words: string[]): string[] {
  const text = readFileSync(README, 'utf8');
  const start = text.indexOf(`\n${heading}\n`);
  ok(start >= 0, `the README has no ${heading}`);
  const section = text.slice(start + 1).split(/\n#{2,3} /)[0] ?? '';
  const blocks = [...section.matchAll(/^```\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block);
  const lines = blocks.flatMap((block) => block.split('\n'));
  const commands = lines.map((line) => line.replace(/\s+# .*$/, '').trim());
  const chosen = commands.filter((line) => words.some((word) => line.startsWith(word)));
  ok(chosen.length > 0, `the README has no ${words.join()} below ${heading}`);
  return chosen;
}

async function typeReadme(lab: Lab): Promise<void> {
  await run('truncate', '-s', '64M', DISK);
  const loop = (await run('losetup', '--show', '-f', DISK)).trim();
  lab.cleanUp(async () => {
    await run('losetup', '-d', loop);
    await rm(DISK);
  });
  const guest = await DebianGuest.create(lab, loop);
  try {
    await install(lab, guest);
    await isWhatItSays(lab, guest);
    await restartUnderLoad(lab, guest);
    await reboot(lab, guest, loop);
    await isMounted(lab, guest);
    await purge(lab, guest);
    await checkClosed(lab, guest, loop);
    await checkFiles(lab, loop);
  } catch (error) {
    const journal = "journalctl --no-pager -o cat -n 40 -u 'xenblk*' | cut -c1-300";
    lab.step(await guest.tell(journal).catch(() => 'the guest does not answer any more'));
    lab.step(guest.domain.consoleText().slice(-4000));
    throw error;
  }
}

async function install(lab: Lab, guest: DebianGuest): Promise<void> {
  match(await guest.tell('ls /dev/xvdb'), /xvdb/, "the kernel's driver has it, as in any guest");
  const before = await guest.tell(FILES);
  await guest.tell(`echo '${before}' > /root/files-before`);
  const commands = [
    ...readmeCommands('## On a Xen guest', 'apt install'),
    ...readmeCommands('### systemd', 'systemctl enable', 'xenblk-nbd doctor', 'mkfs', 'echo'),
    ...readmeCommands('### systemd', 'systemctl daemon-reload', 'mount'),
  ];
  for (const command of commands) await guest.type(`cd /root; ${command}`);
  strictEqual(await guest.tell('findmnt -no SOURCE,FSTYPE /srv'), '/dev/nbd0 ext4');
  await guest.tell('echo kept > /srv/kept');
  lab.step('from nothing to a mounted file system');
}

/** Everything outside of what changes by itself, in a few bytes. */
const FILES =
  'find / -xdev \\( -path /root -o -path /tmp -o -path /srv -o -path /opt \\) -prune ' +
  '-o -name "*xenblk*" -print | sort';

async function isMounted(lab: Lab, guest: DebianGuest): Promise<void> {
  strictEqual(await guest.tell('findmnt -no SOURCE,FSTYPE /srv'), '/dev/nbd0 ext4');
  strictEqual(await guest.tell('cat /srv/kept'), 'kept');
  strictEqual(await guest.tell('systemctl --failed --plain --no-legend'), '');
  lab.step('after a restart of the guest the file system on /dev/nbd0 is mounted');
}

async function isWhatItSays(lab: Lab, guest: DebianGuest): Promise<void> {
  const shown = await guest.tell(
    'systemctl show xenblk-nbd@xvdb -p StatusText -p WatchdogUSec -p Type -p MainPID',
  );
  match(shown, /^StatusText=serving xvdb \(64 MiB\) to 1 client$/m);
  match(shown, /^WatchdogUSec=30s$/m);
  const pid = /^MainPID=([0-9]+)$/m.exec(shown)?.[1];
  const user = await guest.tell(`ps -o user:20= -p ${pid}; grep ^CapEff /proc/${pid}/status`);
  match(user, /^xenblk-nbd\b[\s\S]*0000000000000000/);
  const files = await guest.tell(
    'stat -c "%n %U:%G %a" /dev/xen/xenbus /dev/xen/gntalloc /dev/xen/evtchn',
  );
  for (const line of files.split('\n')) match(line, / root:xenblk-nbd 660$/);
  match(
    await guest.tell('systemctl status --no-pager -n 0 xenblk-nbd@xvdb'),
    /Status: "serving xvdb/,
  );
  const timeout = await guest.tell('cat /sys/block/nbd0/queue/io_timeout');
  strictEqual(timeout, '5000', 'the unit lets the client set it');
  lab.step(`runs as xenblk-nbd, without capabilities; ${shown.replaceAll('\n', ', ')}`);
}

/** Files written and synchronised in a row; the first error ends it. */
const LOAD = `
i=0
while [ ! -e /tmp/enough ]; do
  i=$((i + 1))
  dd if=/dev/urandom of=/srv/file-$((i % 20)) bs=64k count=4 conv=fsync status=none || exit 1
  (cd /srv && sha256sum file-$((i % 20))) > /tmp/sum-$((i % 20)) || exit 1
  echo $i > /tmp/count
done
echo ended > /tmp/ended
`;

async function restartUnderLoad(lab: Lab, guest: DebianGuest): Promise<void> {
  await guest.tell(`cat > /tmp/load.sh <<'END'\n${LOAD}END`);
  await guest.tell('nohup sh /tmp/load.sh >/tmp/load.log 2>&1 & sleep 3');
  const count = async (): Promise<number> =>
    Number(await guest.tell('cat /tmp/count 2>/dev/null || echo 0'));
  const more = async (): Promise<void> => {
    const before = await count();
    await eventually('the load goes on', LOAD_MS, async () =>
      (await count()) >= before + 2 ? true : undefined,
    );
  };
  const pidOf = (): Promise<string> =>
    guest.tell('systemctl show -P MainPID xenblk-nbd@xvdb.service');
  await more();
  const before = await pidOf();
  const startMs = Date.now();
  await guest.type('systemctl restart xenblk-nbd@xvdb');
  await more();
  lab.step(`restarted; the load has gone on ${Date.now() - startMs} ms later`);
  const after = await pidOf();
  notStrictEqual(after, before);

  await guest.type(`kill -KILL ${after}`);
  await eventually('systemd has started another', LOAD_MS, async () => {
    const pid = await pidOf();
    return pid !== '0' && pid !== after ? true : undefined;
  });
  await more();
  await guest.tell('touch /tmp/enough');
  await eventually('the load ends', LOAD_MS, async () =>
    (await guest.tell('cat /tmp/ended 2>/dev/null || true')) === 'ended' ? true : undefined,
  );
  strictEqual(await guest.tell('cat /tmp/load.log'), '', 'no error at the client');
  strictEqual(await guest.tell('dmesg | grep -c "I/O error" || true'), '0');
  await guest.tell('echo 3 > /proc/sys/vm/drop_caches; cat /tmp/sum-* > /srv/sums');
  await guest.tell('cd /srv && sha256sum --quiet -c sums');
  lab.step(`${await count()} files written: no error at a restart and at a kill, all verified`);
}

/** A restart of the guest, with a look at the vbd and its disk in between. */
async function reboot(lab: Lab, guest: DebianGuest, loop: string): Promise<void> {
  await guest.tell('(sleep 2; systemctl reboot) >/dev/null 2>&1 &');
  await guest.domain.waitForShutdown(SHUTDOWN_MS);
  await checkClosed(lab, guest, loop);
  await guest.domain.destroy();
  await guest.boot();
}

/** The vbd is closed, and its file system clean. */
async function checkClosed(lab: Lab, guest: DebianGuest, loop: string): Promise<void> {
  const domid = await guest.domain.domid();
  const frontend = await storeRead(`/local/domain/${domid}/device/vbd/51728/state`);
  const backend = await storeRead(`/local/domain/0/backend/vbd/${domid}/51728/state`);
  strictEqual(`${frontend}/${backend}`, '6/6', 'states of the vbd');
  await run('blockdev', '--flushbufs', loop);
  const superblock = await run('dumpe2fs', '-h', DISK);
  match(superblock, /^Filesystem state: +clean$/m);
  ok(!superblock.includes('needs_recovery'), 'it was unmounted');
  await run('fsck.ext4', '-f', '-n', DISK);
  lab.step('the vbd is at 6/6, and fsck finds a clean file system');
}

/** The disk, mounted by dom0, holds what was written in the guest. */
async function checkFiles(lab: Lab, loop: string): Promise<void> {
  await run('mount', '-t', 'ext4', '-o', 'ro', loop, '/mnt');
  try {
    await run('sh', '-c', 'cd /mnt && sha256sum -c sums');
  } finally {
    await run('umount', '/mnt');
  }
  lab.step('the backing file, mounted by itself, holds every file with its content');
}

async function purge(lab: Lab, guest: DebianGuest): Promise<void> {
  await guest.tell('umount /srv; sed -i /nbd0/d /etc/fstab');
  for (const command of readmeCommands('### systemd', 'apt purge')) await guest.type(command);
  const left = await guest.tell(FILES);
  strictEqual(left, await guest.tell('cat /root/files-before'), 'files that a purge leaves');
  strictEqual(await guest.tell('systemctl list-units --all --plain --no-legend "xenblk*"'), '');
  const processes = 'pgrep -u xenblk-nbd; pgrep -f "[x]enblk-nbd nbd-device"; true';
  strictEqual(await guest.tell(processes), '');
  strictEqual(await guest.tell('ls /run | grep xenblk || true'), '');
  // Debian keeps users that packages have made: a new one could get the files of an old one.
  match(await guest.tell('getent passwd xenblk-nbd'), /:\/usr\/sbin\/nologin$/);
  lab.step('the package is purged: no file, no unit, no process of it is left');
}
