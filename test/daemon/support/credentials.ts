// Certificates and keys for a daemon under test, and what clients show it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import type { Test } from 'tap';
import { type Certificates, makeCertificates } from '../../nbd-server-ts/support/certificates.ts';
import { makeFolder } from './simulated.ts';

/** Options of `serve`, and of clients. */
export interface Credentials {
  readonly pki: Certificates;
  /** `--tls-cert` and `--tls-key`. */
  readonly serverFiles: readonly string[];
  /** The same, and `--tls-ca`. */
  readonly withClientCertificates: readonly string[];
  /** A client without a certificate. */
  readonly trusting: ConnectionOptions;
  /** A client with a good one. */
  readonly known: ConnectionOptions;
}

/** Undefined when there is no openssl to make them. */
export function makeCredentials(t: Test): Credentials | undefined {
  const pki = makeCertificates(makeFolder(t));
  if (pki === undefined) {
    t.comment('skipped: no openssl, apt-get install openssl');
    return undefined;
  }
  const file = (name: string): string => join(pki.directory, name);
  const serverFiles = ['--tls-cert', file('server-cert.pem'), '--tls-key', file('server-key.pem')];
  return {
    pki,
    serverFiles,
    withClientCertificates: [...serverFiles, '--tls-ca', file('ca-cert.pem')],
    trusting: { ca: pki.ca },
    known: { ca: pki.ca, cert: pki.clientCert, key: pki.clientKey },
  };
}

/** The key of the user alice. */
export const ALICE_KEY = '00112233445566778899aabbccddeeff';
/** The key of the user bob. */
export const BOB_KEY = '10112233445566778899aabbccddeeff';

/** A file of keys, and the option that names it. */
export function makeKeys(t: Test): string[] {
  const file = join(makeFolder(t), 'keys.psk');
  writeFileSync(file, `# who may come\nalice:${ALICE_KEY}\n\nbob:${BOB_KEY}\n`);
  return ['--tls-psk', file];
}

/** A client with a key. */
export function withKey(identity: string, hexKey: string): ConnectionOptions {
  return {
    ciphers: 'PSK:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256',
    pskCallback: () => ({ psk: Buffer.from(hexKey, 'hex'), identity }),
    checkServerIdentity: () => undefined,
  };
}
