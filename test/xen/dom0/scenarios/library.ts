// What the library promises for a vbd of the kernel's blkback: the same meaning as on the simulated
// host, with pages of /dev/xen/gntalloc that are used in place, and that stay as memory afterwards.
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from '../../../../src/block/index.ts';
import { eventually } from '../../../support/eventually.ts';
import { SeededRandom } from '../../../support/random.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { createVbd, states } from '../vbd-fixture.ts';

const OK = { ok: true };
const SECTOR_BYTES = 512;

export const library: readonly Scenario[] = [
  { name: 'the library reads and writes, with granted buffers and others', run: readAndWrite },
  { name: 'the library outlasts a backend whose driver is bound anew', run: rebind },
];

async function readAndWrite(lab: Lab): Promise<void> {
  const sizeBytes = 4 << 20;
  const vbd = await createVbd(lab, { sizeBytes });
  const device = await connect(vbd.name);
  lab.cleanUp(() => device.disconnect());
  strictEqual(await states(vbd), '4/4');
  deepStrictEqual(await device.getInfo(), {
    readWrite: true,
    sectorSize: SECTOR_BYTES,
    sizeSectors: BigInt(sizeBytes / SECTOR_BYTES),
  });
  strictEqual(await connect(String(vbd.id)), device, 'one vbd is one device in a process');

  const seed = 815;
  const random = new SeededRandom(seed);
  const pages = device.allocatePages(64);
  random.bytes(pages.length).copy(pages);
  const others = [random.bytes(SECTOR_BYTES), random.bytes(100 * SECTOR_BYTES)];
  const written = Buffer.concat([pages, ...others]);
  deepStrictEqual(await device.write(3n, [pages, ...others]), OK);
  deepStrictEqual(await device.flush(), OK);
  const at = 3 * SECTOR_BYTES;
  const file = readFileSync(vbd.file);
  ok(file.subarray(at, at + written.length).equals(written), `the file differs (seed ${seed})`);

  const more = device.allocatePages(128);
  const rest = Buffer.alloc(written.length - 5 * 4096);
  deepStrictEqual(await device.read(3n, [more.subarray(512, 512 + 5 * 4096), rest]), OK);
  const read = Buffer.concat([more.subarray(512, 512 + 5 * 4096), rest]);
  ok(read.equals(written), `what is read differs (seed ${seed})`);
  lab.step(`${written.length} bytes written and read, in place and by copies (seed ${seed})`);

  device.releasePages(pages);
  ok(pages.equals(written.subarray(0, pages.length)));
  await device.disconnect();
  strictEqual(await states(vbd), '6/6');
  ok(more.subarray(512, 512 + 5 * 4096).equals(written.subarray(0, 5 * 4096)));
  more.fill(0);
  deepStrictEqual(await device.read(0n, [more]), { ok: false, error: { code: 'Disconnected' } });
  lab.step('disconnected at 6/6; the buffers are still there, as memory');

  const again = await connect(vbd.name);
  deepStrictEqual(await again.read(3n, [rest]), OK);
  ok(rest.equals(written.subarray(0, rest.length)));
  await again.disconnect();
}

async function rebind(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 4 << 20 });
  const device = await connect(vbd.name);
  lab.cleanUp(() => device.disconnect());
  const pages = device.allocatePages(16);
  const driver = '/sys/bus/xen-backend/drivers/vbd';
  let failures = 0;
  let rounds = 0;
  let isOver = false;
  const load = (async () => {
    for (let value = 1; !isOver; value = (value + 1) % 256, rounds++) {
      const copied = Buffer.alloc(16 * 4096, value);
      const sector = 512 * (value % 8);
      const write = await device.write(sector, [pages.fill(value), copied]);
      const [one, other] = [Buffer.alloc(copied.length), Buffer.alloc(copied.length)];
      const read = await device.read(sector, [one, other]);
      if (!write.ok || !read.ok || !one.equals(copied) || !other.equals(copied)) failures += 1;
    }
  })();
  const progress = async (): Promise<void> => {
    const goal = rounds + 3;
    await eventually('three more rounds', 60_000, () => (rounds >= goal ? true : undefined));
  };
  for (let round = 0; round < 3; round++) {
    await progress();
    writeFileSync(`${driver}/unbind`, `vbd-0-${vbd.id}`);
    await sleep(500);
    writeFileSync(`${driver}/bind`, `vbd-0-${vbd.id}`);
  }
  await progress();
  isOver = true;
  await load;
  strictEqual(failures, 0);
  lab.step(`bound anew three times; ${rounds} writes and reads, each as it should`);
  await device.disconnect();
  strictEqual(await states(vbd), '6/6');
}
