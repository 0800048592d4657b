/**
 * The whole path as users walk it: the kernel's NBD client on `xenblk-nbd serve`, a file system on
 * it, and at the end the backend's own file compared byte for byte with what was written.
 */
import { ok, strictEqual } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SeededRandom } from '../../../support/random.ts';
import { run } from '../commands.ts';
import { attachNbd } from '../nbd-device.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { createVbd, states } from '../vbd-fixture.ts';

export const fileSystem: Scenario = {
  name: 'a file system over nbd-client, serve and xen-blkback arrives in the backing file',
  timeoutMs: 300_000,
  run: fileSystemRoundTrip,
};

async function fileSystemRoundTrip(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 64 << 20 });
  const served = await serveVbd(lab, vbd);
  strictEqual(await states(vbd), '4/4');
  const device = await attachNbd(lab, 0, served.socket, vbd.name);

  await run('mkfs.ext4', '-q', '-F', device.path);
  lab.step('mkfs.ext4 done');
  const mountPoint = '/mnt';
  await run('mount', '-t', 'ext4', device.path, mountPoint);
  let isMounted = true;
  const unmount = async (): Promise<void> => {
    if (isMounted) await run('umount', mountPoint);
    isMounted = false;
  };
  lab.cleanUp(unmount);
  const written = writeFiles(mountPoint);
  lab.step(`mounted, ${written.size} files written`);
  await unmount();
  await run('sync');
  await run('fsck.ext4', '-f', '-n', device.path);
  lab.step('unmounted, fsck.ext4 -f -n finds nothing');

  const throughNbd = readFileSync(device.path);
  const behind = readFileSync(vbd.file);
  strictEqual(throughNbd.length, behind.length);
  ok(throughNbd.equals(behind), 'the device and the backing file differ');
  lab.step(`all ${behind.length} bytes of ${device.path} equal the backing file`);
  await device.disconnect();
  await served.stop();
  strictEqual(await states(vbd), '6/6');
  lab.step('SIGTERM: exit code 0, states 6/6');

  await run('fsck.ext4', '-f', '-n', vbd.file);
  await run('mount', '-t', 'ext4', '-o', 'loop,ro', vbd.file, mountPoint);
  isMounted = true;
  for (const [name, digest] of written) strictEqual(digestOf(join(mountPoint, name)), digest, name);
  strictEqual(countFiles(mountPoint), written.size);
  await unmount();
  lab.step('the backing file, mounted by itself, holds every file with its content');
}

/** Files of many sizes, by path, with the digest of their content. */
function writeFiles(folder: string): Map<string, string> {
  const random = new SeededRandom(20_20);
  const digests = new Map<string, string>();
  const sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 65_537, 1 << 20, (4 << 20) + 123];
  for (const round of [0, 1]) {
    mkdirSync(join(folder, `folder-${round}`));
    for (const size of sizes) {
      const name = `folder-${round}/file-${size}`;
      const seed = random.bytes(256);
      const content = Buffer.alloc(size, seed);
      writeFileSync(join(folder, name), content);
      digests.set(name, createHash('sha256').update(content).digest('hex'));
    }
  }
  return digests;
}

function digestOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

function countFiles(folder: string): number {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).length;
}
