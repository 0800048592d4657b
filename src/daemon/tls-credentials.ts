/**
 * TLS of NBD (section "TLS support" of doc/proto.md): certificates or pre-shared keys from files,
 * which can be read again while the server runs, and the server's side of one TLS handshake.
 */

import { readFileSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { DaemonError } from './errors.ts';

/** Where the credentials are. Either `certFile` and `keyFile`, or `pskFile`. */
export interface TlsOptions {
  readonly mode: 'off' | 'allow' | 'require';
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** Clients must show a certificate that one of these authorities signed. */
  readonly caFile: string | undefined;
  /** Lines of `USER:HEXKEY`, as psktool of GnuTLS writes them. */
  readonly pskFile: string | undefined;
}

/** Why a client was refused. The message is for the log. */
export class TlsRefusal extends Error {
  override readonly name = 'TlsRefusal';
}

/** Suites of TLS 1.3, which go with keys as well, and those of TLS 1.2 with keys. */
const PSK_CIPHERS =
  'PSK:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256';
const PSK_BYTES_MIN = 8;

export class TlsCredentials {
  readonly #options: TlsOptions;
  #server: tls.TlsOptions;

  /** @throws DaemonError when a file cannot be read, or what it holds cannot be used */
  constructor(options: TlsOptions) {
    this.#options = options;
    this.#server = readServerOptions(options);
  }

  /** Reads the files again. When that fails, what was read before stays. @throws DaemonError */
  reload(): void {
    this.#server = readServerOptions(this.#options);
  }

  /**
   * Leads the handshake on a stream from which nothing was read that belongs to it.
   *
   * @throws TlsRefusal
   */
  accept(stream: Duplex): Promise<tls.TLSSocket> {
    return new Promise((resolve, reject) => {
      // A server of its own for each client: it never listens, and its events are this client's.
      const server = tls.createServer(this.#server);
      server.once('secureConnection', resolve);
      server.once('tlsClientError', (error: NodeJS.ErrnoException, socket: tls.TLSSocket) => {
        reject(new TlsRefusal(describeRefusal(error, socket), { cause: error }));
      });
      server.emit('connection', stream);
    });
  }
}

function describeRefusal(error: NodeJS.ErrnoException, socket: tls.TLSSocket): string {
  // Node reports a certificate that it refuses as a lost connection, with the reason beside it.
  const { authorizationError } = socket as { authorizationError?: unknown };
  if (typeof authorizationError === 'string') {
    return `its certificate was refused: ${authorizationError}`;
  }
  if (error.code === 'ECONNRESET') return 'it left during the TLS handshake';
  const { reason } = error as { reason?: unknown };
  return `the TLS handshake failed: ${typeof reason === 'string' ? reason : error.message}`;
}

function readServerOptions(options: TlsOptions): tls.TlsOptions {
  const { certFile, keyFile, caFile, pskFile } = options;
  const common: tls.TlsOptions = { minVersion: 'TLSv1.2', allowHalfOpen: true };
  if (pskFile !== undefined) {
    const keys = parsePskFile(read('--tls-psk', pskFile), pskFile);
    return {
      ...common,
      ciphers: PSK_CIPHERS,
      // Null refuses the client; the time this takes tells who exists, which is no secret here.
      pskCallback: (_socket, identity) => keys.get(identity) ?? null,
    };
  }
  const credentials = {
    cert: certFile === undefined ? '' : read('--tls-cert', certFile),
    key: keyFile === undefined ? '' : read('--tls-key', keyFile),
    ...(caFile !== undefined && { ca: read('--tls-ca', caFile) }),
  };
  checkCredentials(options, credentials);
  if (caFile !== undefined && !credentials.ca?.includes('-----BEGIN CERTIFICATE-----')) {
    // OpenSSL takes such a file for an empty list, and then nobody could come.
    throw new DaemonError(`--tls-ca ${caFile}: there is no certificate in this file`);
  }
  return {
    ...common,
    ...credentials,
    ...(caFile !== undefined && { requestCert: true, rejectUnauthorized: true }),
  };
}

function read(option: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const what = code === 'ENOENT' ? 'no such file' : message;
    throw new DaemonError(`${option} ${path}: ${what}`, { cause: error });
  }
}

function checkCredentials(options: TlsOptions, credentials: tls.SecureContextOptions): void {
  try {
    tls.createSecureContext(credentials);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const { certFile, keyFile, caFile } = options;
    const files = [certFile, keyFile, caFile].filter((file) => file !== undefined).join(', ');
    const what =
      code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH'
        ? `the key of ${keyFile} does not belong to the certificate of ${certFile}`
        : `the TLS credentials cannot be used (${message}): give PEM files, not ${files}`;
    throw new DaemonError(what, { cause: error });
  }
}

/** The keys by user. @throws DaemonError */
function parsePskFile(text: string, path: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line === '' || line.startsWith('#')) continue;
    const match = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(line.trimEnd());
    const [, user = '', hex = ''] = match ?? [];
    if (hex.length / 2 < PSK_BYTES_MIN) {
      // The line itself is a secret.
      throw new DaemonError(
        `--tls-psk ${path}: line ${index + 1} is not USER:HEXKEY with a key of at least ` +
          `${PSK_BYTES_MIN} bytes; make one with psktool, or \`openssl rand -hex 32\``,
      );
    }
    keys.set(user, Buffer.from(hex, 'hex'));
  }
  if (keys.size === 0) throw new DaemonError(`--tls-psk ${path}: there is no key in this file`);
  return keys;
}
