// Ways to reach the server, and how each client is told of them: Unix socket and TCP in the clear,
// and TCP under TLS with certificates on both sides or with a key.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeCertificates } from '../nbd-server-ts/support/certificates.ts';
import { findFreePort } from '../support/free-port.ts';
import { words } from '../support/program.ts';
import type { CaseContext } from './runner.ts';

const USER = 'alice';
const KEY = '00112233445566778899aabbccddeeff';

/** A server that was started for one transport. */
export interface Reached {
  /** For the clients of libnbd. */
  readonly uri: string;
  /** What comes before everything else on the command lines of qemu. */
  readonly qemuObjects: readonly string[];
  /** The served disk in the words of `--image-opts`. */
  readonly qemuImage: string;
  /** The same for nbdkit's nbd plugin. */
  readonly nbdkitArgs: readonly string[];
}

export interface Transport {
  readonly name: string;
  /** Serves a file in this way until the end of the case. */
  reach(context: CaseContext, file: string): Promise<Reached>;
}

async function serveOnTcp(
  context: CaseContext,
  file: string,
  args: readonly string[],
): Promise<number> {
  const port = await findFreePort();
  await context.serve(file, { extraArgs: ['--listen', `127.0.0.1:${port}`, ...args] });
  return port;
}

const OVER_NBD = 'driver=raw,file.driver=nbd';

function overTls(port: number): string {
  const secure = 'file.tls-creds=tls0,file.tls-hostname=localhost';
  return `${OVER_NBD},file.host=127.0.0.1,file.port=${port},${secure}`;
}

export const TRANSPORTS: readonly Transport[] = [
  {
    name: 'Unix',
    async reach(context, file) {
      const { uri } = await context.serve(file);
      const path = context.path('nbd0.sock');
      const qemuImage = `${OVER_NBD},file.path=${path}`;
      return { uri, qemuObjects: [], qemuImage, nbdkitArgs: [`socket=${path}`] };
    },
  },
  {
    name: 'plain TCP',
    async reach(context, file) {
      const port = await serveOnTcp(context, file, []);
      return {
        uri: `nbd://127.0.0.1:${port}/`,
        qemuObjects: [],
        qemuImage: `${OVER_NBD},file.host=127.0.0.1,file.port=${port}`,
        nbdkitArgs: ['hostname=127.0.0.1', `port=${port}`],
      };
    },
  },
  {
    name: 'x509',
    async reach(context, file) {
      const pki = makeCertificates(context.folder);
      assert.ok(pki !== undefined, 'openssl makes the certificates');
      const pem = (name: string): string => join(pki.directory, name);
      const args = words(
        `--tls require --tls-cert ${pem('server-cert.pem')} --tls-key ${pem('server-key.pem')} ` +
          `--tls-ca ${pem('ca-cert.pem')}`,
      );
      const port = await serveOnTcp(context, file, args);
      const { directory } = pki;
      return {
        uri: `nbds://localhost:${port}/?tls-certificates=${directory}`,
        qemuObjects: ['--object', `tls-creds-x509,id=tls0,endpoint=client,dir=${directory}`],
        qemuImage: overTls(port),
        nbdkitArgs: words(
          `hostname=localhost port=${port} tls=require tls-certificates=${directory}`,
        ),
      };
    },
  },
  {
    name: 'PSK',
    async reach(context, file) {
      // qemu looks for a file of this name in a folder.
      const folder = context.path('keys');
      const keys = join(folder, 'keys.psk');
      mkdirSync(folder);
      writeFileSync(keys, `${USER}:${KEY}\n`);
      const port = await serveOnTcp(context, file, ['--tls', 'require', '--tls-psk', keys]);
      const object = `tls-creds-psk,id=tls0,endpoint=client,dir=${folder},username=${USER}`;
      return {
        uri: `nbds://${USER}@localhost:${port}/?tls-psk-file=${keys}`,
        qemuObjects: ['--object', object],
        qemuImage: overTls(port).replace(',file.tls-hostname=localhost', ''),
        nbdkitArgs: words(
          `hostname=localhost port=${port} tls=require tls-psk=${keys} tls-username=${USER}`,
        ),
      };
    },
  },
];
