// Goal: STARTTLS lets in whom it should, with nothing from before, and tells the log whom it did
// not. Method: node:tls as the client, with certificates that openssl makes, and pre-shared keys.

import { NbdServer, type NbdTlsConfig, parsePskFile } from 'nbd-server-ts';
import t from 'tap';
import { type Certificates, makeCertificates } from './support/certificates.ts';
import type { RawClient } from './support/raw-client.ts';
import {
  startServer,
  type TestServer,
  temporaryDirectory,
  transmitting,
  until,
} from './support/test-server.ts';

const made = makeCertificates(temporaryDirectory(t));

async function startTls(client: RawClient, options: object): Promise<void> {
  client.option(5);
  const replies = await client.optionReplies();
  if (replies[0]?.type !== 1) throw new Error(`STARTTLS was answered ${replies[0]?.type}`);
  await client.startTls(options);
}

async function reads(client: RawClient): Promise<boolean> {
  client.request({ command: 0, length: 1 });
  return (await client.simpleReply(1)).errno === 0;
}

async function logged(server: TestServer, pattern: RegExp): Promise<void> {
  await until(
    () => server.log.some((line) => pattern.test(line.message)),
    `a log line like ${pattern}, among ${JSON.stringify(server.log)}`,
  );
}

void t.test('certificates', { skip: made === undefined && 'openssl is missing' }, async (t) => {
  const pki = made as Certificates;
  const config: NbdTlsConfig = { mode: 'require', cert: pki.serverCert, key: pki.serverKey };
  const trust = { ca: pki.ca, servername: 'localhost' };

  await t.test('of the server only', async (t) => {
    const server = await startServer(t, { tls: config });
    const client = await server.connect();
    await client.greet();
    await startTls(client, trust);
    t.match(await client.go(), [{ type: 3 }, { type: 1 }]);
    t.ok(await reads(client));
    await logged(server, /^uses TLSv1\.3, no certificate\.$/);
    client.request({ command: 2 });
    await client.closed();
    await until(() => server.server.connections === 0, 'DISC ends it');
  });

  await t.test('TLS 1.2 is enough, 1.1 is not', async (t) => {
    const server = await startServer(t, { tls: config });
    const client = await server.connect();
    await client.greet();
    await startTls(client, { ...trust, maxVersion: 'TLSv1.2' });
    await client.go();
    t.ok(await reads(client));
    const old = await server.connect();
    await old.greet();
    await t.rejects(
      startTls(old, {
        ...trust,
        minVersion: 'TLSv1',
        maxVersion: 'TLSv1.1',
        ciphers: 'ALL:@SECLEVEL=0',
      }),
    );
    await logged(server, /failed to start TLS/);
  });

  await t.test('of clients, required', async (t) => {
    const server = await startServer(t, { tls: { ...config, ca: pki.ca } });
    const client = await server.connect();
    await client.greet();
    await startTls(client, { ...trust, cert: pki.clientCert, key: pki.clientKey });
    await client.go();
    t.ok(await reads(client));
    await logged(server, /certificate "client"/);
    for (const [who, options] of [
      ['nobody', trust],
      ['a stranger', { ...trust, cert: pki.strangerCert, key: pki.strangerKey }],
    ] as const) {
      const refused = await server.connect();
      await refused.greet();
      // With TLS 1.3 the client is done before the server looks at its certificate.
      await startTls(refused, options).catch(() => {});
      await t.rejects(refused.go(), `${who} is not let in`);
      await logged(
        server,
        who === 'nobody' ? /did not return a certificate/i : /failed to start TLS/,
      );
    }
  });

  await t.test('of clients, optional', async (t) => {
    const server = await startServer(t, {
      tls: { ...config, ca: pki.ca, clientCertificates: 'optional' },
    });
    for (const options of [trust, { ...trust, cert: pki.clientCert, key: pki.clientKey }]) {
      const client = await server.connect();
      await client.greet();
      await startTls(client, options);
      await client.go();
      t.ok(await reads(client));
    }
    const stranger = await server.connect();
    await stranger.greet();
    await startTls(stranger, { ...trust, cert: pki.strangerCert, key: pki.strangerKey }).catch(
      () => {},
    );
    await t.rejects(stranger.go());
    await logged(server, /client certificate refused/);
  });

  await t.test('what was agreed in the clear is gone', async (t) => {
    const server = await startServer(t, { tls: { ...config, mode: 'allow' } });
    const client = await server.connect();
    await client.greet();
    client.option(8);
    await client.optionReplies();
    await startTls(client, trust);
    await client.go();
    t.ok(await reads(client), 'the reply is a simple one');
  });

  await t.test('bytes in the clear behind STARTTLS', async (t) => {
    const server = await startServer(t, { tls: config });
    const joined = await server.connect();
    await joined.greet();
    joined.send('49484156454f5054 00000005 00000000 49484156454f5054 00000003 00000000');
    t.equal((await joined.closed()).length, 0);
    const split = await server.connect();
    await split.greet();
    split.option(5);
    await split.optionReplies();
    split.send('49484156454f5054 00000007 00000006 00000000 0000');
    const answer = await split.closed();
    t.notMatch(answer.toString('hex'), '0003e889045565a9', 'it is not taken for an option');
    await logged(server, /failed to start TLS/);
  });

  await t.test('plain clients', async (t) => {
    const allowed = await startServer(t, { tls: { ...config, mode: 'allow' } });
    t.ok(await reads(await transmitting(allowed)));
    const required = await startServer(t, { tls: config });
    const client = await required.connect();
    await client.greet();
    t.match(await client.go(), [{ type: 0x80000005 }]);
  });

  await t.test('a client that leaves or stays silent in the TLS handshake', async (t) => {
    const server = await startServer(t, { tls: config, limits: { handshakeMs: 200 } });
    const leaving = await server.connect();
    await leaving.greet();
    leaving.option(5);
    await leaving.optionReplies();
    leaving.destroy();
    const silent = await server.connect();
    await silent.greet();
    silent.option(5);
    await silent.optionReplies();
    await silent.closed();
    await until(() => server.server.connections === 0, 'both are gone');
    await logged(server, /handshake within 200 ms/);
  });

  await t.test('certificates are replaced for new clients', async (t) => {
    const server = await startServer(t, { tls: config });
    const old = await server.connect();
    await old.greet();
    await startTls(old, trust);
    await old.go();
    t.throws(() => server.server.replaceTls({ cert: 'no PEM', key: 'no PEM' }), {
      code: 'ERR_NBD_TLS_CONFIG',
    });
    server.server.replaceTls({ cert: pki.serverCert, key: pki.serverKey, ca: pki.ca });
    t.ok(await reads(old), 'old clients go on');
    const young = await server.connect();
    await young.greet();
    await startTls(young, trust).catch(() => {});
    await t.rejects(young.go(), 'new ones need a certificate now');
  });

  await t.test('a configuration that cannot work is refused at once', async (t) => {
    const rows: readonly (readonly [NbdTlsConfig, RegExp])[] = [
      [{ mode: 'require' }, /needs a certificate/],
      [{ mode: 'require', cert: pki.serverCert }, /given together/],
      [{ mode: 'require', cert: pki.serverCert, key: 'nonsense' }, /cannot be used/],
      [{ mode: 'require', cert: pki.serverCert, key: pki.clientKey }, /cannot be used/],
      [{ ...config, clientCertificates: 'required' }, /only be checked with a ca/],
    ];
    for (const [tls, message] of rows) {
      t.throws(() => new NbdServer({ tls }), { code: 'ERR_NBD_TLS_CONFIG', message });
    }
    t.throws(() => new NbdServer().replaceTls(config), { code: 'ERR_NBD_TLS_CONFIG' });
  });
});

void t.test('pre-shared keys', async (t) => {
  const psk = parsePskFile('# users\nalice:00112233445566778899aabbccddeeff\n\nbob:0102\n');
  const server = await startServer(t, { tls: { mode: 'require', psk } });
  const options = (identity: string, key: string): object => ({
    checkServerIdentity: () => undefined,
    ciphers: 'PSK:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256',
    pskCallback: () => ({ identity, psk: Buffer.from(key, 'hex') }),
  });
  const alice = options('alice', '00112233445566778899aabbccddeeff');
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
    const client = await server.connect();
    await client.greet();
    await startTls(client, { ...alice, maxVersion });
    await client.go();
    t.ok(await reads(client), maxVersion);
    await logged(server, new RegExp(`^uses ${maxVersion}, pre-shared key "alice"`));
  }
  for (const wrong of [options('alice', '00'), options('mallory', '00112233')]) {
    const client = await server.connect();
    await client.greet();
    await t.rejects(startTls(client, wrong));
    await logged(server, /failed to start TLS/);
  }
});

void t.test('PSK files', async (t) => {
  t.equal(parsePskFile('a:00\r\nb:ff').size, 2);
  for (const [text, message] of [
    ['', /holds no/],
    ['alice:00\nbob', /^Line 2/],
    ['alice:0', /^Line 1/],
    ['alice:xyzw', /^Line 1/],
    [':00', /^Line 1/],
  ] as const) {
    t.throws(() => parsePskFile(text), { code: 'ERR_NBD_PSK_FILE', message });
  }
});
