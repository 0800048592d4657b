// Goal: the daemon says how much memory it may take, and how the kernel finds it; and it serves a
// disk that is larger than all memory that it can have, with the cache of that disk in the same.
import { readdirSync, readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon } from '../support/daemon.ts';
import { createSparseImage, readFileRange } from '../support/disk-image.ts';
import { eventually } from '../support/eventually.ts';
import { MemoryCgroup } from '../support/memory-cgroup.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Errno } from '../support/nbd-wire.ts';
import { SeededRandom } from '../support/random.ts';
import { logged, makeFolder, startSimulated } from './support/simulated.ts';

const MIB = 2 ** 20;
const TMPFS_MAGIC = 0x01021994;
/** Flag of a thread in the kernel's stat file: its memory comes without I/O (linux/sched.h). */
const PF_MEMALLOC_NOIO = 0x00080000;

/** The flags of the first lane, as the kernel has them. */
function laneFlags(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  for (const id of readdirSync(tasks)) {
    if (!readFileSync(`${tasks}/${id}/comm`, 'utf8').startsWith('lane-0')) continue;
    const stat = readFileSync(`${tasks}/${id}/stat`, 'utf8');
    // pid (comm) state ppid pgrp session tty tpgid flags
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6]);
  }
  throw new Error('no lane');
}

void t.test('the bounds are in the log at the start', async (t) => {
  const { daemon } = await startSimulated(t, ['xvdb', 'xvdc', '--buffer-memory', '5M']);
  const [memory, ...others] = logged(daemon.log, 'memory');
  t.strictSame(others, []);
  const attached = logged(daemon.log, 'attached');
  const sumOf = (name: string): number =>
    attached.reduce((sum, line) => sum + Number(line[name]), 0);
  t.match(memory, {
    grantedBytes: sumOf('grantedPages') * 4096,
    slots: sumOf('slots'),
    buffersBytes: 10 * MIB,
    clientBytes: 256 * 1024,
  });
  const isFlusher = (laneFlags(daemon.pid) & PF_MEMALLOC_NOIO) !== 0;
  t.equal(memory?.['ioFlusher'], isFlusher, 'the lane is what the log says');
  await daemon.stop();
});

void t.test('a disk larger than the memory of its control group', async (t) => {
  const limitBytes = 176 * MIB;
  const sizeBytes = 320 * MIB;
  const pieceBytes = 512 * 1024;
  const folder = makeFolder(t);
  if (statfsSync(folder).type === TMPFS_MAGIC) {
    t.comment(`skipped: ${folder} is in memory, so that the file of the disk would be too`);
    return;
  }
  const group = MemoryCgroup.create(`xenblk-nbd-test-${process.pid}`, limitBytes);
  if (typeof group === 'string') {
    t.comment(`skipped: no control group can be made: ${group}`);
    return;
  }
  const image = join(folder, 'disk.raw');
  const path = join(folder, 'nbd.sock');
  createSparseImage(image, sizeBytes);
  let daemon: Daemon | undefined;
  t.teardown(async () => {
    if (daemon?.result === undefined) daemon?.kill('SIGKILL');
    await daemon?.waitForEnd();
    await eventually('the group is empty', 30_000, () => {
      try {
        group.remove();
        return true;
      } catch {
        return undefined;
      }
    });
  });
  daemon = await Daemon.start(['--simulate', image, '--unix', path], group.runner);
  const { client } = await NbdClient.open({ path });
  const pieceAt = (offset: number): Buffer => new SeededRandom(offset + 1).bytes(pieceBytes);
  for (let offset = 0; offset < sizeBytes; offset += 4 * pieceBytes) {
    const offsets = [0, 1, 2, 3].map((index) => offset + index * pieceBytes);
    const replies = await Promise.all(offsets.map((at) => client.write(at, pieceAt(at))));
    for (const { error } of replies) if (error !== Errno.OK) t.fail(`error ${error} at ${offset}`);
  }
  t.equal((await client.flush()).error, Errno.OK);
  let wrong = 0;
  for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
    const expected = pieceAt(offset);
    if (!(await client.readOk(offset, pieceBytes)).equals(expected)) wrong += 1;
    if (!readFileRange(image, offset, pieceBytes).equals(expected)) wrong += 1;
  }
  t.equal(wrong, 0, 'every byte, by NBD and in the file');
  t.equal(group.killCount, 0, 'nobody was killed for want of memory');
  await client.disconnect();
  await daemon.stop();
});
