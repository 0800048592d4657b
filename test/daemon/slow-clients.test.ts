// Goal: clients that are slow, silent or gone hold up nobody else, and lose nothing themselves.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { Cmd, Errno, requestHeader } from '../support/nbd-wire.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { MIB, serveFile } from '../support/served-file.ts';

void t.test('a client that does not read its replies holds up nobody else', async (t) => {
  const { daemon, open } = await serveFile(t, 16 * MIB);
  const [slow, other] = [await open(), await open()];
  slow.bytes.pause();
  const pattern = new SeededRandom(runSeed()).bytes(MIB);
  t.equal((await other.write(0, pattern)).error, Errno.OK);
  // Far more than all granted pages.
  const reads = Array.from({ length: 200 }, () => slow.readOk(0, 65_536));
  for (let i = 0; i < 20; i++) {
    t.ok((await other.readOk(0, MIB)).equals(pattern));
    t.equal((await other.write(2 * MIB, pattern)).error, Errno.OK);
  }
  slow.bytes.resume();
  for (const bytes of await Promise.all(reads)) {
    if (!bytes.equals(pattern.subarray(0, 65_536))) t.fail('a late reply has wrong bytes');
  }
  await slow.disconnect();
  await other.disconnect();
  await daemon.stop();
});

void t.test('clients that fall silent in their payload hold up nobody else', async (t) => {
  const { daemon, file, open } = await serveFile(t, 16 * MIB);
  const payload = new SeededRandom(runSeed()).bytes(MIB);
  const header = (index: number) =>
    requestHeader({ type: Cmd.WRITE, offset: index * MIB + 77, payload }, 7n);
  const silent = await Promise.all(Array.from({ length: 12 }, open));
  // Each stops somewhere else in its payload, also in the middle of a page.
  const cuts = silent.map((_, index) => 4096 * index + 1 + index * 50_000);
  for (const [index, client] of silent.entries()) {
    client.bytes.send(Buffer.concat([header(index), payload.subarray(0, cuts[index])]));
  }
  const other = await open();
  for (let i = 0; i < 20; i++) {
    t.equal((await other.readOk(15 * MIB, MIB)).length, MIB);
    t.equal((await other.write(15 * MIB, payload)).error, Errno.OK);
  }
  for (const [index, client] of silent.entries()) client.bytes.send(payload.subarray(cuts[index]));
  for (const client of silent) t.equal((await client.bytes.receive(16)).readUInt32BE(4), Errno.OK);
  await other.flush();
  const held = readFileSync(file);
  for (const index of silent.keys()) {
    const at = index * MIB + 77;
    t.ok(held.subarray(at, at + MIB).equals(payload), `client ${index}`);
  }
  for (const client of silent) client.bytes.destroy();
  await other.disconnect();
  await daemon.stop();
});
