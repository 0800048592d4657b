/**
 * What xen-blkback offers beyond plain requests, and how the daemon uses it. blkback's own counters
 * in sysfs tell which ring requests arrived.
 */
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { NbdClient } from '../../../support/nbd-client.ts';
import { CmdFlag, Errno, Flag } from '../../../support/nbd-wire.ts';
import { SeededRandom } from '../../../support/random.ts';
import { eventually, run } from '../commands.ts';
import { loadKernelFrontend } from '../kernel-frontend.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { storeRead } from '../store.ts';
import { createVbd, states, type Vbd } from '../vbd-fixture.ts';
import { VerifiedLoad } from '../verified-load.ts';

export const features: readonly Scenario[] = [
  {
    name: 'large requests, flush, FUA, trim and zeroes arrive at xen-blkback as such',
    run: requests,
  },
  { name: 'a disk with sectors of 4096 bytes serves every alignment', run: largeSectors },
  { name: 'the disk grows while it is served', run: resize },
  { name: 'two queues and rings of 16 pages carry a verified load', run: manyRings },
  {
    name: '--take-over takes a free disk of the kernel, and no mounted one',
    run: takeOverBySwitch,
  },
];

/** xen-blkback's counters of ring requests and of sectors, by name. */
function countersOf(vbd: Vbd): Record<string, number> {
  const folder = `/sys/bus/xen-backend/devices/vbd-0-${vbd.id}/statistics`;
  const read = (name: string): number => Number(readFileSync(`${folder}/${name}`, 'utf8'));
  return Object.fromEntries(readdirSync(folder).map((name) => [name, read(name)]));
}

/** What `action` added to blkback's counters; those that stayed are left out. */
async function countsOf(vbd: Vbd, action: () => Promise<void>): Promise<Record<string, number>> {
  const before = countersOf(vbd);
  await action();
  const differences = Object.entries(countersOf(vbd)).map(
    ([name, value]) => [name, value - (before[name] ?? 0)] as const,
  );
  return Object.fromEntries(differences.filter(([, difference]) => difference !== 0));
}

async function requests(lab: Lab): Promise<void> {
  const sizeBytes = 8 << 20;
  const vbd = await createVbd(lab, { sizeBytes });
  const served = await serveVbd(lab, vbd);
  const { client, description } = await NbdClient.open(served.address);
  for (const flag of ['SEND_FLUSH', 'SEND_FUA', 'SEND_TRIM', 'SEND_WRITE_ZEROES'] as const) {
    ok((description.flags & Flag[flag]) !== 0, flag);
  }
  const mebibyte = Buffer.alloc(1 << 20, new SeededRandom(5).bytes(4099));
  const succeeds = async (reply: Promise<{ error: number }>): Promise<void> =>
    strictEqual((await reply).error, Errno.OK);

  const write = await countsOf(vbd, () => succeeds(client.write(1 << 20, mebibyte)));
  // The write may begin before all of its bytes came, so it may be more than one request.
  strictEqual(write['wr_sect'], 2048);
  ok((write['wr_req'] ?? 0) <= 4, `${write['wr_req']} requests for 1 MiB; direct ones were 24`);
  const read = await countsOf(vbd, async () => {
    ok((await client.readOk(1 << 20, 1 << 20)).equals(mebibyte));
  });
  deepStrictEqual(read, { rd_req: 1, rd_sect: 2048 });
  lab.step(`1 MiB is written by ${write['wr_req']} ring requests and read by one: indirect ones`);

  deepStrictEqual(await countsOf(vbd, () => succeeds(client.flush())), { f_req: 1 });
  const fua = await countsOf(vbd, () =>
    succeeds(client.write(0, mebibyte.subarray(0, 4096), CmdFlag.FUA)),
  );
  deepStrictEqual(fua, { wr_req: 1, wr_sect: 8, f_req: 1 });
  lab.step('FLUSH is a flush, a FUA write is a write and a flush');

  const trim = await countsOf(vbd, () => succeeds(client.trim((1 << 20) + 65_536, 65_536)));
  deepStrictEqual(trim, { ds_req: 1 });
  ok((await client.readOk((1 << 20) + 65_536, 65_536)).every((byte) => byte === 0));
  await succeeds(client.writeZeroes((1 << 20) + 262_144, 131_072 + 100));
  await succeeds(client.flush());
  const expected = Buffer.alloc(sizeBytes);
  mebibyte.copy(expected, 1 << 20);
  mebibyte.copy(expected, 0, 0, 4096);
  expected.fill(0, (1 << 20) + 65_536, (1 << 20) + 131_072);
  expected.fill(0, (1 << 20) + 262_144, (1 << 20) + 262_144 + 131_072 + 100);
  ok(readFileSync(vbd.file).equals(expected), 'the backing file differs');
  lab.step('a trim is a discard, zeroes are zeroes; the backing file is as expected');
  await client.disconnect();
  await served.stop();
}

async function largeSectors(lab: Lab): Promise<void> {
  const sizeBytes = 2 << 20;
  const vbd = await createVbd(lab, { sizeBytes, sectorSize: 4096 });
  const served = await serveVbd(lab, vbd);
  strictEqual(await storeRead(`${vbd.backendPath}/sector-size`), '4096');
  strictEqual(await storeRead(`${vbd.backendPath}/sectors`), String(sizeBytes / 512));
  const { client, description } = await NbdClient.open(served.address);
  strictEqual(description.sizeBytes, BigInt(sizeBytes));
  const model = Buffer.alloc(sizeBytes);
  const random = new SeededRandom(4096);
  for (let round = 0; round < 60; round++) {
    const length = 1 + random.below(round % 10 === 0 ? 100_000 : 9000);
    const offset = random.below(sizeBytes - length);
    const payload = Buffer.alloc(length, random.bytes(61));
    payload.copy(model, offset);
    strictEqual((await client.write(offset, payload)).error, Errno.OK);
  }
  strictEqual((await client.flush()).error, Errno.OK);
  ok(readFileSync(vbd.file).equals(model), 'the backing file differs');
  ok((await client.readOk(0, sizeBytes)).equals(model));
  lab.step(
    `sector-size 4096; 60 odd writes arrived (preferred ${description.blockSize?.preferred})`,
  );
  await client.disconnect();
  await served.stop();
}

async function resize(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 4 << 20 });
  const served = await serveVbd(lab, vbd);
  const { client, description } = await NbdClient.open(served.address);
  strictEqual(description.sizeBytes, BigInt(4 << 20));
  truncateSync(vbd.file, 8 << 20);
  await run('losetup', '-c', vbd.loopDevice);
  const grown = await eventually('a new client sees 8 MiB', 60_000, async () => {
    const { client: other, description: seen } = await NbdClient.open(served.address);
    if (seen.sizeBytes === BigInt(8 << 20)) return other;
    await other.disconnect();
    return undefined;
  });
  const block = Buffer.alloc(4096, 0x77);
  strictEqual((await grown.write((8 << 20) - 4096, block)).error, Errno.OK);
  strictEqual((await grown.flush()).error, Errno.OK);
  ok(readFileSync(vbd.file).subarray(-4096).equals(block));
  strictEqual(
    (await client.write((4 << 20) - 4096, block)).error,
    Errno.OK,
    'the old client works',
  );
  lab.step('a new client sees the new size and writes to its end; the old one goes on');
  await client.disconnect();
  await grown.disconnect();
  await served.stop();
}

async function manyRings(lab: Lab): Promise<void> {
  // blkback offers as many queues as dom0 has processors, which is one; it takes more when told.
  const maxQueues = '/sys/module/xen_blkback/parameters/max_queues';
  const before = readFileSync(maxQueues, 'utf8').trim();
  writeFileSync(maxQueues, '2');
  lab.cleanUp(() => writeFileSync(maxQueues, before));
  const blockBytes = 8192;
  const blockCount = 512;
  const vbd = await createVbd(lab, { sizeBytes: blockBytes * blockCount });
  const served = await serveVbd(lab, vbd, '--queues', '2', '--ring-page-order', '4');
  strictEqual(await storeRead(`${vbd.frontendPath}/multi-queue-num-queues`), '2');
  strictEqual(await storeRead(`${vbd.frontendPath}/ring-page-order`), '4');
  for (const queue of [0, 1]) {
    match(await storeRead(`${vbd.frontendPath}/queue-${queue}/ring-ref15`), /^\d+$/);
  }
  const threads = readdirSync(`/proc/${served.pid}/task`).map((task) =>
    readFileSync(`/proc/${served.pid}/task/${task}/comm`, 'utf8').trim(),
  );
  deepStrictEqual(threads.filter((name) => name.startsWith('lane-')).sort(), ['lane-0', 'lane-1']);
  const { address } = served;
  const shape = { address, blockBytes, blockCount, connections: 4, depth: 8, seed: 77 };
  const load = await VerifiedLoad.start(shape);
  await load.waitForProgress(2000, 240_000);
  await load.finish(vbd.file);
  lab.step(`${load.completed} requests of 8 KiB over 4 connections; the backing file agrees`);
  await served.stop();
  strictEqual(await states(vbd), '6/6');
}

async function takeOverBySwitch(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 16 << 20 });
  await loadKernelFrontend(lab);
  const device = `/dev/${vbd.name}`;
  await eventually(`${device} appears`, 60_000, async () =>
    (await states(vbd)) === '4/4' ? true : undefined,
  );
  await run('mkfs.ext4', '-q', '-F', device);
  await run('mount', device, '/mnt');
  const refused = await serveVbd(lab, vbd, '--take-over').then(
    () => 'it was taken',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  match(refused, /mounted on \/mnt/);
  strictEqual(await states(vbd), '4/4');
  await run('umount', '/mnt');
  lab.step('refused while it is mounted');

  const served = await serveVbd(lab, vbd, '--take-over');
  strictEqual(await states(vbd), '4/4');
  const { client } = await NbdClient.open(served.address);
  const superblock = await client.readOk(1024, 1024);
  strictEqual(superblock.readUInt16LE(56), 0xef53, "ext4's magic number");
  await client.disconnect();
  await served.stop();
  lab.step(`served, and after SIGTERM: states ${await states(vbd)}`);
  lab.step(
    served.log
      .split('\n')
      .filter((line) => /kernel/.test(line))
      .slice(-3)
      .join('\n'),
  );
}
