// What `serve` promises for a vbd of the kernel's blkback, beyond plain reads and writes.
import { doesNotMatch, match, ok, strictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { runXenblkNbd } from '../../../support/daemon.ts';
import { NbdClient } from '../../../support/nbd-client.ts';
import { Errno, Flag } from '../../../support/nbd-wire.ts';
import { SeededRandom } from '../../../support/random.ts';
import { eventually } from '../commands.ts';
import { loadKernelFrontend } from '../kernel-frontend.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { storeList } from '../store.ts';
import { createVbd, states } from '../vbd-fixture.ts';

export const servedBasics: readonly Scenario[] = [
  { name: 'a read-only vbd is announced so, and a write is answered EPERM', run: readOnly },
  { name: 'SIGTERM leaves 6/6, and the vbd can be attached again and again', run: attachAgain },
  { name: 'odd offsets and lengths reach the backing file exactly', run: oddRanges },
  { name: 'a vbd that is taken, by a daemon or by the kernel, is left alone', run: takenVbds },
];

async function readOnly(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 4 << 20, isReadOnly: true });
  const served = await serveVbd(lab, vbd);
  const { client, description } = await NbdClient.open(served.address);
  ok((description.flags & Flag.READ_ONLY) !== 0, `flags 0x${description.flags.toString(16)}`);
  strictEqual((await client.write(0, Buffer.alloc(512, 1))).error, Errno.EPERM);
  strictEqual((await client.trim(0, 4096)).error, Errno.EPERM);
  strictEqual((await client.writeZeroes(0, 4096)).error, Errno.EPERM);
  ok((await client.readOk(0, 4096)).every((byte) => byte === 0));
  lab.step('READ_ONLY announced; write, trim and zeroes answered EPERM; reads work');
  await client.disconnect();
  await served.stop();
  strictEqual(await states(vbd), '6/6');
}

async function attachAgain(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 4 << 20 });
  for (const round of [1, 2]) {
    const served = await serveVbd(lab, vbd);
    strictEqual(await states(vbd), '4/4');
    const { client } = await NbdClient.open(served.address);
    const before = await client.readOk(0, 4096);
    ok(before.every((byte) => byte === round - 1));
    strictEqual((await client.write(0, Buffer.alloc(4096, round))).error, Errno.OK);
    await client.disconnect();
    await served.stop();
    strictEqual(await states(vbd), '6/6');
    const left = (await storeList(vbd.frontendPath)).filter((name) =>
      /^(ring|event|queue)/.test(name),
    );
    strictEqual(left.join(' '), '', 'keys of the connection are gone');
  }
  lab.step('two rounds, the second reads what the first wrote; no keys left behind');
}

async function oddRanges(lab: Lab): Promise<void> {
  const sizeBytes = 2 << 20;
  const vbd = await createVbd(lab, { sizeBytes });
  const served = await serveVbd(lab, vbd);
  const model = Buffer.alloc(sizeBytes);
  const seed = 4711;
  const random = new SeededRandom(seed);
  const { client: one } = await NbdClient.open(served.address);
  const { client: other } = await NbdClient.open(served.address);
  for (let round = 0; round < 40; round++) {
    // Each round's writes do not overlap, so they may be in flight together.
    const step = Math.floor(sizeBytes / 8);
    const writes = Array.from({ length: 8 }, (_, index) => {
      const length = 1 + random.below(round % 4 === 0 ? step - 1 : 3000);
      const offset = index * step + random.below(step - length);
      const payload = Buffer.alloc(length, random.bytes(97));
      payload.copy(model, offset);
      return (index % 2 === 0 ? one : other).write(offset, payload);
    });
    for (const reply of await Promise.all(writes)) strictEqual(reply.error, Errno.OK);
  }
  strictEqual((await one.flush()).error, Errno.OK);
  ok(readFileSync(vbd.file).equals(model), `the backing file differs (seed ${seed})`);
  const read = await other.readOk(0, sizeBytes);
  ok(read.equals(model), `what is read differs (seed ${seed})`);
  lab.step('320 odd writes from two connections, 8 at a time: the file and a 2 MiB read agree');
  await one.disconnect();
  await other.disconnect();
  await served.stop();
}

async function takenVbds(lab: Lab): Promise<void> {
  const fails = async (words: RegExp, ...args: string[]): Promise<void> => {
    const { status, stderr, stdout } = await runXenblkNbd(['serve', ...args]);
    lab.step(`serve ${args[0] ?? ''}: ${stderr.trim()}`);
    strictEqual(stdout, '');
    strictEqual(status, 1);
    strictEqual(stderr.trim().split('\n').length, 1, stderr);
    match(stderr, words);
  };
  const first = await createVbd(lab, { sizeBytes: 1 << 20 });
  const served = await serveVbd(lab, first);
  const { client } = await NbdClient.open(served.address);
  const other = ['--unix', '/run/other.sock'];
  const taken = `${first.name} is in use by another xenblk-nbd \\(process ${served.pid}\\)`;
  await fails(new RegExp(taken), first.name, ...other);
  strictEqual((await client.write(0, Buffer.alloc(512, 1))).error, Errno.OK);
  doesNotMatch(served.log, /recovery-began/, 'nobody noticed');
  await client.disconnect();
  await served.stop();

  const second = await createVbd(lab, { sizeBytes: 1 << 20 });
  await loadKernelFrontend(lab);
  await eventually('the kernel has it', 60_000, async () =>
    (await states(second)) === '4/4' ? true : undefined,
  );
  await fails(/kernel/i, second.name, ...other);
  strictEqual(await states(second), '4/4', "the kernel's connection was not touched");
}
