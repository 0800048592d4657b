// Opens listening sockets: TCP, Unix (with its mode, and a stale one replaced), or a descriptor
// that somebody else opened, as systemd does.

import { chmodSync } from 'node:fs';
import { lstat, unlink } from 'node:fs/promises';
import net from 'node:net';
import { NBD_PORT } from './constants.ts';
import { NbdServerError } from './errors.ts';

/** Where to listen. */
export type ListenAddress =
  | {
      /** A name or an address. Default 127.0.0.1. */
      readonly host?: string;
      /** Default 10809; 0 takes a free one. */
      readonly port?: number;
      /** Take IPv6 connections only, when the host is `::`. Default false. */
      readonly ipv6Only?: boolean;
    }
  | {
      /** The path of a Unix socket. */
      readonly path: string;
      /** Its permissions. Default 0o600. */
      readonly mode?: number;
    }
  | {
      /** A listening socket. */
      readonly fd: number;
    };

/** Where the server listens. */
export type NbdAddress =
  | {
      /** TCP. */
      readonly kind: 'tcp';
      /** The numeric address that it is bound to. */
      readonly host: string;
      /** The port, also where 0 was asked for. */
      readonly port: number;
      /** For NBD clients: `nbd://127.0.0.1/`, the name of an export may follow. */
      readonly uri: string;
    }
  | {
      /** A Unix socket. */
      readonly kind: 'unix';
      /** Its path. */
      readonly path: string;
      /** For NBD clients: `nbd+unix:///?socket=PATH`. */
      readonly uri: string;
    }
  | {
      /** A socket that was listening already. */
      readonly kind: 'fd';
      /** Its descriptor. */
      readonly fd: number;
    };

const DEFAULT_MODE = 0o600;
const PERMISSION_BITS = 0o777;

/**
 * Starts `server` on `address`.
 * @throws NbdServerError ERR_NBD_ADDRESS_IN_USE, ERR_NBD_NOT_A_SOCKET or ERR_NBD_LISTEN
 */
export async function listenOn(server: net.Server, address: ListenAddress): Promise<NbdAddress> {
  if ('path' in address) {
    await listenUnix(server, address.path, address.mode ?? DEFAULT_MODE);
    const query = encodeURIComponent(address.path).replaceAll('%2F', '/');
    return { kind: 'unix', path: address.path, uri: `nbd+unix:///?socket=${query}` };
  }
  if ('fd' in address) {
    await attempt(server, `descriptor ${address.fd}`, () => server.listen({ fd: address.fd }));
    return { kind: 'fd', fd: address.fd };
  }
  const { host = '127.0.0.1', port = NBD_PORT, ipv6Only = false } = address;
  await attempt(server, `${host} port ${port}`, () => server.listen({ host, port, ipv6Only }));
  const bound = server.address() as net.AddressInfo;
  const shownHost = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  const shownPort = bound.port === NBD_PORT ? '' : `:${bound.port}`;
  const uri = `nbd://${shownHost}${shownPort}/`;
  return { kind: 'tcp', host: bound.address, port: bound.port, uri };
}

async function listenUnix(server: net.Server, path: string, mode: number): Promise<void> {
  const listen = (): Promise<void> =>
    attempt(server, path, () => listenWithMode(server, path, mode));
  try {
    await listen();
  } catch (error) {
    const isInUse = error instanceof NbdServerError && error.code === 'ERR_NBD_ADDRESS_IN_USE';
    if (!isInUse) throw error;
    await removeStaleSocket(path, error);
    await listen();
  }
}

function listenWithMode(server: net.Server, path: string, mode: number): void {
  let mask: number | undefined;
  try {
    // With the mask the socket never exists with wider permissions, not even for a moment.
    mask = process.umask(PERMISSION_BITS & ~mode);
  } catch {
    // A worker thread cannot change the mask of the process.
  }
  try {
    server.listen({ path });
  } finally {
    if (mask !== undefined) process.umask(mask);
  }
  if (mask === undefined) server.once('listening', () => chmodSync(path, mode));
}

/** Removes the socket at `path` when nobody listens on it. */
async function removeStaleSocket(path: string, cause: NbdServerError): Promise<void> {
  const stats = await lstat(path);
  if (!stats.isSocket()) {
    throw new NbdServerError(
      'ERR_NBD_NOT_A_SOCKET',
      `${path} exists and is not a socket: choose another path or remove it.`,
      { cause },
    );
  }
  if (await isAlive(path)) throw cause;
  await unlink(path);
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
}

function attempt(server: net.Server, where: string, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException): void => {
      server.off('listening', succeed);
      reject(listenError(error, where));
    };
    const succeed = (): void => {
      server.off('error', fail);
      resolve();
    };
    server.once('error', fail);
    server.once('listening', succeed);
    listen();
  });
}

function listenError(error: NodeJS.ErrnoException, where: string): NbdServerError {
  if (error.code === 'EADDRINUSE') {
    const text = `Another server listens on ${where}: stop it or choose another address.`;
    return new NbdServerError('ERR_NBD_ADDRESS_IN_USE', text, { cause: error });
  }
  const text = `Listening on ${where} is not possible: ${error.message}.`;
  return new NbdServerError('ERR_NBD_LISTEN', text, { cause: error });
}
