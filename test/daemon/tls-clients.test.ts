// Goal: pre-shared keys, and the TLS of real clients.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Errno } from '../support/nbd-wire.ts';
import { findProgram, mustRun, runProgram } from '../support/program.ts';
import { SeededRandom } from '../support/random.ts';
import { ALICE_KEY, BOB_KEY, makeCredentials, makeKeys, withKey } from './support/credentials.ts';
import { makeFolder, startSimulated } from './support/simulated.ts';
import { openThroughTls, startTls } from './support/tls-client.ts';

const MIB = 1024 * 1024;

const credentials = makeCredentials(t);
if (credentials === undefined) process.exit(0);
const { pki, withClientCertificates } = credentials;

void t.test('keys instead of certificates', async (t) => {
  const { daemon, socket } = await startSimulated(t, makeKeys(t));
  const client = await openThroughTls(t, { path: socket }, withKey('alice', ALICE_KEY));
  t.equal((await client.write(0, Buffer.alloc(1000, 3))).error, Errno.OK);
  const older = await openThroughTls(
    t,
    { path: socket },
    {
      ...withKey('bob', BOB_KEY),
      maxVersion: 'TLSv1.2',
    },
  );
  t.equal((await older.readOk(0, 1))[0], 3, 'TLS 1.2');
  await t.rejects(startTls({ path: socket }, withKey('alice', BOB_KEY)), 'wrong key');
  await t.rejects(startTls({ path: socket }, withKey('mallory', ALICE_KEY)), 'nobody');
  t.notMatch(daemon.log, new RegExp(ALICE_KEY), 'no key in the log');
  await daemon.stop();
});

void t.test("libnbd's clients", async (t) => {
  if (findProgram('nbdcopy') === undefined) {
    t.comment('skipped: no nbdcopy, apt-get install libnbd-bin');
    return;
  }
  const folder = makeFolder(t);
  const image = join(folder, 'in.img');
  writeFileSync(image, new SeededRandom(1).bytes(4 * MIB));
  const { daemon, socket } = await startSimulated(t, withClientCertificates, '4M');
  const uri = `nbds+unix://localhost/?socket=${socket}&tls-certificates=${pki.directory}`;
  t.match((await mustRun('nbdinfo', [uri])).stdout, /with TLS/);
  await mustRun('nbdcopy', [image, uri]);
  await mustRun('nbdcopy', ['--connections=4', uri, join(folder, 'out.img')]);
  await mustRun('cmp', [image, join(folder, 'out.img')]);
  const stranger = uri.replace(pki.directory, pki.strangerDirectory);
  t.equal((await runProgram('nbdinfo', [stranger])).status, 1, 'a certificate nobody signed');
  await daemon.stop();
  const keys = await startSimulated(t, makeKeys(t));
  const file = join(folder, 'client.psk');
  writeFileSync(file, `alice:${ALICE_KEY}\n`);
  const secret = `nbds+unix://alice@localhost/?socket=${keys.socket}&tls-psk-file=${file}`;
  t.match((await mustRun('nbdinfo', [secret])).stdout, /with TLS/);
  await keys.daemon.stop();
});
