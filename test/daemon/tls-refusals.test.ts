// Goal: who TLS keeps out, what the log says of it, and which credentials a server can have.
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import t from 'tap';
import { TlsCredentials, type TlsOptions } from '../../src/daemon/tls-credentials.ts';
import { runXenblkNbd } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { makeCredentials } from './support/credentials.ts';
import { logged, makeFolder, startSimulated } from './support/simulated.ts';
import { closed, openThroughTls, sayStartTls, startTls } from './support/tls-client.ts';

const credentials = makeCredentials(t);
if (credentials === undefined) process.exit(0);
const { pki, serverFiles, withClientCertificates, trusting, known } = credentials;

void t.test('bytes in front of TLS are never read as if they had come through it', async (t) => {
  const { daemon, socket } = await startSimulated(t, serverFiles);
  const list = Buffer.from('49484156454f50540000000300000000', 'hex');
  const { socket: plain } = await sayStartTls({ path: socket }, list);
  await closed(plain);
  const [line] = logged(daemon.log, 'client-handshake');
  t.match(line?.['message'], /in the clear behind NBD_OPT_STARTTLS/);
  await daemon.stop();
});

void t.test('clients that are refused: one line each, and the others go on', async (t) => {
  const { daemon, socket } = await startSimulated(t, withClientCertificates);
  const good = await openThroughTls(t, { path: socket }, known);
  const stranger = { ca: pki.ca, cert: pki.strangerCert, key: pki.strangerKey };
  const refusals: [what: string, options: ConnectionOptions, says: RegExp][] = [
    ['of another authority', stranger, /its certificate was refused: UNABLE_TO_/],
    ['no certificate', trusting, /peer did not return a certificate/],
    ['an old protocol', { ...known, maxVersion: 'TLSv1.1', minVersion: 'TLSv1' }, /TLS handshake/],
  ];
  for (const [index, [what, options, says]] of refusals.entries()) {
    // With TLS 1.3 the client only learns of it when it reads.
    const attempt = openThroughTls(t, { path: socket }, options);
    await t.rejects(attempt, what);
    const line = await eventually(`a line about ${what}`, 30_000, () => {
      return logged(daemon.log, 'client-handshake')[index];
    });
    t.match(line['message'], says, what);
  }
  const { socket: garbled } = await sayStartTls({ path: socket });
  garbled.write('this is no ClientHello');
  await closed(garbled);
  t.equal((await good.readOk(0, 512)).length, 512);
  await good.disconnect();
  await daemon.stop();
});

void t.test('SIGHUP: certificates are read again, unless they are broken', async (t) => {
  const folder = makeFolder(t);
  const install = (): void => {
    for (const name of ['server-cert.pem', 'server-key.pem']) {
      copyFileSync(join(pki.directory, name), join(folder, name));
    }
  };
  install();
  const [cert, key] = [join(folder, 'server-cert.pem'), join(folder, 'server-key.pem')];
  const { daemon, socket } = await startSimulated(t, ['--tls-cert', cert, '--tls-key', key]);
  const hangUp = async (event: string): Promise<Record<string, unknown>> => {
    const before = logged(daemon.log, event).length;
    daemon.kill('SIGHUP');
    return eventually(event, 30_000, () => logged(daemon.log, event)[before]);
  };
  const before = await openThroughTls(t, { path: socket }, trusting);
  rmSync(key);
  t.match((await hangUp('tls-not-reloaded'))['message'], /--tls-key .*no such file/);
  writeFileSync(key, pki.clientKey);
  t.match((await hangUp('tls-not-reloaded'))['message'], /does not belong to the certificate/);
  await (await openThroughTls(t, { path: socket }, trusting)).disconnect();
  writeFileSync(cert, pki.clientCert);
  await hangUp('tls-reloaded');
  const { secure } = await startTls({ path: socket }, { ...trusting, rejectUnauthorized: false });
  t.equal(secure.getPeerCertificate().subject.CN, 'client', 'the new certificate is shown');
  secure.destroy();
  t.equal((await before.readOk(0, 512)).length, 512, 'who was there before stays');
  await daemon.stop();
});

void t.test('credentials that cannot be used', async (t) => {
  const folder = makeFolder(t);
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const [, certFile, , keyFile] = serverFiles;
  const notPem = file('not.pem', 'nothing');
  const good: TlsOptions = {
    mode: 'require',
    certFile,
    keyFile,
    caFile: undefined,
    pskFile: undefined,
  };
  t.ok(new TlsCredentials(good));
  const refused: [options: Partial<TlsOptions>, says: RegExp][] = [
    [{ certFile: join(folder, 'missing') }, /--tls-cert .*missing: no such file/],
    [{ keyFile: file('key', pki.clientKey) }, /does not belong/],
    [{ certFile: notPem, keyFile: notPem }, /not\.pem/],
    [{ caFile: join(folder, 'missing') }, /--tls-ca .*missing: no such file/],
    [{ caFile: notPem }, /--tls-ca .*not\.pem: there is no certificate/],
    [{ pskFile: file('short', 'alice:00') }, /short: line 1 is not USER:HEXKEY/],
    [{ pskFile: file('odd', `#\nalice:${'0'.repeat(33)}`) }, /odd: line 2 is not USER:HEXKEY/],
    [{ pskFile: file('empty', '# nobody\n') }, /there is no key/],
    [{ pskFile: folder }, /EISDIR/],
  ];
  for (const [options, says] of refused) {
    const make = (): TlsCredentials => new TlsCredentials({ ...good, ...options });
    t.throws(make, { name: 'DaemonError', message: says });
    t.throws(make, { message: /^(?!.*(alice:|BEGIN))[^\n]*$/ }, 'one line, and no secrets');
  }
  const [option = '', cert = ''] = serverFiles;
  const args = ['serve', '--simulate', '1M', '--listen', '127.0.0.1:0', option, cert];
  const { status, stderr } = await runXenblkNbd([...args, '--tls-key', notPem]);
  t.equal(status, 1);
  t.match(stderr, /^xenblk-nbd: [^\n]*not\.pem[^\n]*\n$/);
});
