// Goal: TLS with certificates and with keys as its clients see it: what they may do before and
// after, and that bytes, back-pressure and the end are as they are without it.
import t from 'tap';
import { eventually } from '../support/eventually.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Errno, Opt, Rep } from '../support/nbd-wire.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { makeCredentials } from './support/credentials.ts';
import { logged, startSimulated } from './support/simulated.ts';
import { openThroughTls } from './support/tls-client.ts';

const MIB = 1024 * 1024;

const credentials = makeCredentials(t);
if (credentials === undefined) process.exit(0);
const { serverFiles, withClientCertificates, trusting, known } = credentials;

void t.test('what is written through TLS comes back, many requests at once', async (t) => {
  const { daemon, socket } = await startSimulated(t, withClientCertificates, '16M');
  t.match(daemon.uris[0], /^nbds\+unix:\/\/\/xvda\?socket=/);
  const random = new SeededRandom(runSeed());
  const clients = await Promise.all(
    Array.from({ length: 3 }, () => openThroughTls(t, { path: socket }, known)),
  );
  await Promise.all(
    clients.map(async (client, index) => {
      const share = 2 * MIB;
      const bytes = random.bytes(share);
      const writes = [];
      for (let at = 0; at < share; ) {
        const length = Math.min(share - at, 1 + random.below(300_000));
        writes.push(client.write(index * share + at, bytes.subarray(at, at + length)));
        at += length;
      }
      for (const { error } of await Promise.all(writes)) t.equal(error, Errno.OK);
      const reads = [];
      for (let at = 0; at < share; at += 100_001) {
        reads.push(client.readOk(index * share + at, Math.min(100_001, share - at)));
      }
      t.ok(Buffer.concat(await Promise.all(reads)).equals(bytes), `client ${index}`);
    }),
  );
  for (const client of clients) await client.disconnect();
  t.equal(logged(daemon.log, 'client-came').filter((line) => line['tls'] === true).length, 3);
  await daemon.stop();
});

void t.test('a client that does not read holds up nobody', async (t) => {
  const { daemon, socket } = await startSimulated(t, serverFiles, '16M');
  const slow = await openThroughTls(t, { path: socket }, trusting);
  slow.bytes.pause();
  const reads = Array.from({ length: 16 }, (_, i) => slow.readOk(i * MIB, MIB));
  const quick = await openThroughTls(t, { path: socket }, trusting);
  for (let i = 0; i < 16; i++) t.equal((await quick.readOk(i * MIB, MIB)).length, MIB);
  slow.bytes.resume();
  t.ok((await Promise.all(reads)).every((bytes) => bytes.length === MIB));
  await daemon.stop();
});

void t.test('SIGTERM: what was answered arrives', async (t) => {
  const { daemon, socket } = await startSimulated(t, serverFiles, '16M');
  const client = await openThroughTls(t, { path: socket }, trusting);
  const reads = Array.from({ length: 64 }, (_, i) =>
    client.read(i * 65_536, 65_536).catch(() => undefined),
  );
  await reads[0];
  await daemon.stop();
  const replies = await Promise.all(reads);
  const answered = replies.filter((reply) => reply !== undefined);
  t.ok(answered.every(({ error }) => error === Errno.OK || error === Errno.ESHUTDOWN));
  t.ok(answered.length > 0);
});

void t.test('--tls require: nothing but STARTTLS and ABORT goes in the clear', async (t) => {
  const { daemon, socket } = await startSimulated(t, serverFiles);
  const client = await NbdClient.connect({ path: socket });
  await client.greet();
  for (const option of [Opt.LIST, Opt.INFO, Opt.GO, Opt.STRUCTURED_REPLY, 77]) {
    t.equal((await client.option(option)).pop()?.type, Rep.ERR_TLS_REQD, `option ${option}`);
  }
  client.sendOption(Opt.EXPORT_NAME);
  await client.bytes.receiveEnd();
  const secure = await openThroughTls(t, { path: socket }, trusting);
  t.equal((await secure.readOk(0, 512)).length, 512);
  t.equal(
    (
      await eventually('a log line', 30_000, () => {
        const lines = logged(daemon.log, 'client-handshake');
        return lines.length > 0 ? lines : undefined;
      })
    ).length,
    1,
    'one line for the client that tried',
  );
  await daemon.stop();
});

void t.test('--tls allow: in the clear as well; --tls off: no TLS', async (t) => {
  const allowed = await startSimulated(t, ['--tls', 'allow', ...serverFiles]);
  t.match(allowed.daemon.uris[0], /^nbd\+unix:/);
  t.equal((await (await allowed.open()).readOk(0, 512)).length, 512);
  const secure = await openThroughTls(t, { path: allowed.socket }, trusting);
  t.equal((await secure.readOk(0, 512)).length, 512);
  await allowed.daemon.stop();
  const off = await startSimulated(t);
  const client = await NbdClient.connect({ path: off.socket });
  await client.greet();
  t.not((await client.option(Opt.STARTTLS)).pop()?.type, Rep.ACK);
  t.equal((await client.list()).length, 1, 'and the handshake goes on');
  await off.daemon.stop();
});
