// Certificates for tests, made by openssl where it is installed: an authority, a server, a client,
// and a client of another authority.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** PEM texts and the directory they lie in, with the file names that libnbd and qemu look for. */
export interface Certificates {
  readonly directory: string;
  /** A directory for a client whose certificate nobody here signed. */
  readonly strangerDirectory: string;
  readonly ca: string;
  readonly serverCert: string;
  readonly serverKey: string;
  readonly clientCert: string;
  readonly clientKey: string;
  readonly strangerCert: string;
  readonly strangerKey: string;
}

/** Runs openssl with blank-separated arguments. */
function openssl(directory: string, args: string): void {
  const { status, stderr } = spawnSync('openssl', args.split(/\s+/), {
    cwd: directory,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`openssl ${args}: ${stderr}`);
}

const NEW_KEY = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';

function makeAuthority(directory: string): void {
  openssl(
    directory,
    `req -x509 ${NEW_KEY} -days 2 -subj /CN=authority -keyout ca-key.pem -out ca-cert.pem`,
  );
}

function makeCertificate(directory: string, name: string, usage: string): void {
  openssl(directory, `req ${NEW_KEY} -subj /CN=${name} -keyout ${name}-key.pem -out ${name}.csr`);
  writeFileSync(
    join(directory, `${name}.ext`),
    `subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=${usage}\n`,
  );
  openssl(
    directory,
    `x509 -req -days 2 -in ${name}.csr -extfile ${name}.ext -CA ca-cert.pem -CAkey ca-key.pem
      -CAcreateserial -out ${name}-cert.pem`,
  );
}

/** Undefined when there is no openssl. */
export function makeCertificates(parent: string): Certificates | undefined {
  if (spawnSync('openssl', ['version']).status !== 0) return undefined;
  const directory = join(parent, 'pki');
  const strangerDirectory = join(parent, 'stranger');
  mkdirSync(directory);
  mkdirSync(strangerDirectory);
  makeAuthority(directory);
  makeCertificate(directory, 'server', 'serverAuth');
  makeCertificate(directory, 'client', 'clientAuth');
  makeAuthority(strangerDirectory);
  makeCertificate(strangerDirectory, 'client', 'clientAuth');
  const read = (folder: string, name: string): string => readFileSync(join(folder, name), 'utf8');
  // The stranger trusts the server, but nobody trusts the stranger.
  writeFileSync(join(strangerDirectory, 'ca-cert.pem'), read(directory, 'ca-cert.pem'));
  return {
    directory,
    strangerDirectory,
    ca: read(directory, 'ca-cert.pem'),
    serverCert: read(directory, 'server-cert.pem'),
    serverKey: read(directory, 'server-key.pem'),
    clientCert: read(directory, 'client-cert.pem'),
    clientKey: read(directory, 'client-key.pem'),
    strangerCert: read(strangerDirectory, 'client-cert.pem'),
    strangerKey: read(strangerDirectory, 'client-key.pem'),
  };
}
