// STARTTLS on node:tls: x509 with or without client certificates, and pre-shared keys. Section "TLS
// support". Each connection gets its settings when its TLS begins, so certificates can be replaced
// while the server runs.

import type { Duplex } from 'node:stream';
import { createSecureContext, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { NbdServerError } from './errors.ts';

/** Pre-shared keys by user name. */
export type PskTable = ReadonlyMap<string, Uint8Array>;

/** How clients and server prove who they are. Certificates, keys, or both. */
export interface NbdTlsConfig {
  /** 'allow' leaves the choice to the client, 'require' refuses everything before TLS. */
  readonly mode: 'allow' | 'require';
  /** The certificate chain of the server, PEM. */
  readonly cert?: string | Buffer;
  /** Its private key, PEM. */
  readonly key?: string | Buffer;
  /** The authorities that sign client certificates, PEM. */
  readonly ca?: string | Buffer;
  /** Revoked client certificates, PEM. */
  readonly crl?: string | Buffer;
  /** Whether clients have to show a certificate signed by `ca`. Default 'required' with a `ca`. */
  readonly clientCertificates?: 'none' | 'optional' | 'required';
  /** Pre-shared keys, an alternative to certificates. */
  readonly psk?: PskTable;
}

const TLS13_SUITES = 'TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256';
/** Suites with forward secrecy; with certificates, and in the second half with PSK. */
const X509_SUITES = 'ECDHE+AESGCM:ECDHE+CHACHA20';
const PSK_SUITES = 'ECDHEPSK+CHACHA20:ECDHEPSK+AES:DHEPSK+CHACHA20:DHEPSK+AESGCM:PSK+AESGCM';

/**
 * Checks a configuration before anybody connects, so that a broken file is found when it is loaded.
 * @throws NbdServerError ERR_NBD_TLS_CONFIG
 */
export function assertTlsConfig(config: NbdTlsConfig): void {
  const hasCertificate = config.cert !== undefined && config.key !== undefined;
  if ((config.cert === undefined) !== (config.key === undefined)) {
    throw tlsConfigError('A certificate and its private key have to be given together.');
  }
  if (!hasCertificate && config.psk === undefined) {
    throw tlsConfigError('TLS needs a certificate with its key, or pre-shared keys.');
  }
  if (config.ca === undefined && (config.clientCertificates ?? 'none') !== 'none') {
    throw tlsConfigError('Client certificates can only be checked with a ca.');
  }
  try {
    createSecureContext(secureContextOptions(config));
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw tlsConfigError(`The certificate, key or ca cannot be used: ${text}.`, error);
  }
}

function tlsConfigError(message: string, cause?: unknown): NbdServerError {
  return new NbdServerError('ERR_NBD_TLS_CONFIG', message, { cause });
}

function secureContextOptions(config: NbdTlsConfig): TlsOptions {
  const { cert, key, ca, crl, psk } = config;
  const suites = [TLS13_SUITES];
  if (psk !== undefined) suites.push(PSK_SUITES);
  if (cert !== undefined) suites.push(X509_SUITES);
  return {
    minVersion: 'TLSv1.2',
    ciphers: suites.join(':'),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(ca === undefined ? {} : { ca }),
    ...(crl === undefined ? {} : { crl }),
  };
}

/** Who is at the other end of a TLS connection, for the log. */
function describePeer(socket: TLSSocket, pskIdentity: string | undefined): string {
  if (pskIdentity !== undefined) return `pre-shared key ${JSON.stringify(pskIdentity)}`;
  const subject = socket.getPeerCertificate().subject as { CN?: unknown } | undefined;
  return typeof subject?.CN === 'string'
    ? `certificate ${JSON.stringify(subject.CN)}`
    : 'no certificate';
}

/** A connection that speaks TLS now. */
export interface UpgradedStream {
  readonly socket: TLSSocket;
  /** Protocol and proven identity, for the log. */
  readonly description: string;
}

/**
 * Leads the server's side of a TLS handshake on `stream`. Nobody may be reading from it. Calls back
 * exactly once, with the upgraded stream or with the error; on an error the stream is destroyed.
 */
export function upgradeToTls(
  stream: Duplex,
  config: NbdTlsConfig,
  callback: (result: UpgradedStream | Error) => void,
): void {
  const clientCertificates =
    config.clientCertificates ?? (config.ca === undefined ? 'none' : 'required');
  let pskIdentity: string | undefined;
  let isSettled = false;
  // One node:tls server per connection: it never listens, and gives public events with the checks
  // of client certificates done, which a bare TLSSocket does not.
  const server = createServer({
    ...secureContextOptions(config),
    requestCert: clientCertificates !== 'none',
    rejectUnauthorized: clientCertificates === 'required',
    // The limit on the whole handshake of NBD is tighter and is kept by the connection.
    handshakeTimeout: 120_000,
    ...(config.psk === undefined
      ? {}
      : {
          pskCallback: (_socket: TLSSocket, identity: string) => {
            const key = config.psk?.get(identity);
            pskIdentity = identity;
            return key ?? null;
          },
        }),
  });
  const settle = (result: UpgradedStream | Error): void => {
    if (isSettled) return;
    isSettled = true;
    if (result instanceof Error) stream.destroy();
    callback(result);
  };
  server.on('secureConnection', (socket) => {
    if (clientCertificates === 'optional' && hasUntrustedCertificate(socket)) {
      socket.destroy();
      settle(new Error(`client certificate refused: ${String(socket.authorizationError)}`));
      return;
    }
    const description = `${socket.getProtocol() ?? 'TLS'}, ${describePeer(socket, pskIdentity)}`;
    settle({ socket, description });
  });
  server.on('tlsClientError', (error, socket) => {
    socket.destroy();
    settle(error);
  });
  stream.once('close', () => settle(new Error('the client left during the TLS handshake')));
  server.emit('connection', stream);
}

/** 'optional' means none or a good one; a bad one is refused. */
function hasUntrustedCertificate(socket: TLSSocket): boolean {
  return !socket.authorized && Object.keys(socket.getPeerCertificate()).length > 0;
}

/**
 * Parses the lines `user:hexkey` of a PSK file, as GnuTLS, QEMU and nbdkit use it.
 * @throws NbdServerError ERR_NBD_PSK_FILE with the line number, never with the key.
 */
export function parsePskFile(text: string): PskTable {
  const table = new Map<string, Uint8Array>();
  text.split('\n').forEach((line, index) => {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) return;
    const match = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(trimmed);
    const [, user, key] = match ?? [];
    if (user === undefined || key === undefined) {
      throw new NbdServerError(
        'ERR_NBD_PSK_FILE',
        `Line ${index + 1} of the PSK file is not "user:hexkey".`,
      );
    }
    table.set(user, Buffer.from(key, 'hex'));
  });
  if (table.size === 0) {
    throw new NbdServerError('ERR_NBD_PSK_FILE', 'The PSK file holds no "user:hexkey" line.');
  }
  return table;
}
