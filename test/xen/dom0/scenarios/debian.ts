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
import { run } from '../commands.ts';
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
  // The kernel's driver has the disk, as in any guest.
  await guest.tell(`ls /dev/xvdb && { ${FILES}; } > /root/files-before`);
  const commands = [
    ...readmeCommands('## On a Xen guest', 'apt install'),
    ...readmeCommands('### systemd', 'systemctl enable', 'xenblk-nbd doctor', 'mkfs', 'echo'),
    ...readmeCommands('### systemd', 'systemctl daemon-reload', 'mount'),
  ];
  for (const command of commands) await guest.type(`cd /root; ${command}`);
  strictEqual(await guest.tell(`${MOUNTED}; echo kept > /srv/kept`), '/dev/nbd0 ext4');
  lab.step('from nothing to a mounted file system');
}

const MOUNTED = 'findmnt -no SOURCE,FSTYPE /srv';

/** Everything outside of what changes by itself, in a few bytes. */
const FILES =
  'find / -xdev \\( -path /root -o -path /tmp -o -path /srv -o -path /opt \\) -prune ' +
  '-o -name "*xenblk*" -print | sort';

async function isMounted(lab: Lab, guest: DebianGuest): Promise<void> {
  const script = `${MOUNTED}; cat /srv/kept; systemctl --failed --plain --no-legend`;
  strictEqual(await guest.tell(script), '/dev/nbd0 ext4\nkept', 'mounted, and no unit has failed');
  lab.step('after a restart of the guest the file system on /dev/nbd0 is mounted');
}

/** What the running service is, as systemd, the kernel and the file system have it. */
const SERVICE = `
systemctl show xenblk-nbd@xvdb -p StatusText -p WatchdogUSec -p MainPID
pid=$(systemctl show -P MainPID xenblk-nbd@xvdb)
ps -o user:20= -p $pid
grep ^CapEff /proc/$pid/status
stat -c "%n %U:%G %a" /dev/xen/xenbus /dev/xen/gntalloc /dev/xen/evtchn
systemctl status --no-pager -n 0 xenblk-nbd@xvdb | grep Status:
cat /sys/block/nbd0/queue/io_timeout
`;

async function isWhatItSays(lab: Lab, guest: DebianGuest): Promise<void> {
  const said = await guest.tell(SERVICE);
  match(said, /^StatusText=serving xvdb \(64 MiB\) to 1 client$/m);
  match(said, /^WatchdogUSec=30s$/m);
  match(said, /^xenblk-nbd *\nCapEff:\W*0{16}$/m, 'a user without capabilities');
  for (const name of ['xenbus', 'gntalloc', 'evtchn']) {
    match(said, new RegExp(`^/dev/xen/${name} root:xenblk-nbd 660$`, 'm'));
  }
  match(said, /^ *Status: "serving xvdb/m);
  match(said, /^5000$/m, 'the time-out that the unit lets the client set');
  lab.step(`runs as xenblk-nbd, without capabilities; ${said.split('\n', 3).join(', ')}`);
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
`;

/** For scripts: how the load is, and what systemd runs. An error of the load ends the waiting. */
const WATCHING = `
count() { count=0; [ ! -e /tmp/count ] || read -r count </tmp/count || count=0; }
more() {
  count; wanted=$((count + 2))
  until count; [ $count -ge $wanted ]; do [ ! -e /tmp/ended ] || exit 1; sleep 0.5; done
}
pid() { systemctl show -P MainPID xenblk-nbd@xvdb.service; }
`;

/** The load's last words, of which each line is an error, then its exit code, and what it wrote. */
const CHECK_LOAD = `
touch /tmp/enough
until [ -s /tmp/ended ]; do sleep 0.5; done
cat /tmp/load.log
dmesg | grep "I/O error"
cat /tmp/sum-* > /srv/sums
sync
echo 3 > /proc/sys/vm/drop_caches
(cd /srv && sha256sum --quiet -c sums)
cat /tmp/ended /tmp/count
`;

async function restartUnderLoad(lab: Lab, guest: DebianGuest): Promise<void> {
  const watch = (script: string): Promise<string> => guest.tell(`${WATCHING}${script}`);
  const before = await watch(`
cat > /tmp/load.sh <<'END'
${LOAD}
END
{ sh /tmp/load.sh; echo $? > /tmp/ended; } >/tmp/load.log 2>&1 &
more; pid`);
  const startMs = Date.now();
  await guest.type('systemctl restart xenblk-nbd@xvdb');
  const after = await watch('more; pid');
  notStrictEqual(after, before);
  lab.step(`restarted; the load has gone on ${Date.now() - startMs} ms later`);

  await guest.type(`kill -KILL ${after}`);
  const last = await watch('more; pid');
  ok(last !== '0' && last !== after, 'systemd has started another');
  const said = await guest.tell(CHECK_LOAD);
  match(said, /^0\n[0-9]+$/, 'no error at the client, none in the kernel, and all as written');
  const count = said.split('\n')[1];
  lab.step(`${count} files written: no error at a restart and at a kill, all verified`);
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

/** What is left after a purge: files, units, processes, run-time files, and the user. */
const REMAINS = `
{ ${FILES}; } | diff /root/files-before -
systemctl list-units --all --plain --no-legend "xenblk*"
pgrep -u xenblk-nbd
pgrep -f "[x]enblk-nbd nbd-device"
ls /run | grep xenblk
getent passwd xenblk-nbd
`;

async function purge(lab: Lab, guest: DebianGuest): Promise<void> {
  await guest.tell('umount /srv; sed -i /nbd0/d /etc/fstab');
  for (const command of readmeCommands('### systemd', 'apt purge')) await guest.type(command);
  // Debian keeps users that packages have made: a new one could get the files of an old one.
  match(await guest.tell(REMAINS), /^xenblk-nbd:.*:\/usr\/sbin\/nologin$/, 'a user, and no more');
  lab.step('the package is purged: no file, no unit, no process of it is left');
}
