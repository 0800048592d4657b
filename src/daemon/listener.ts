/** Sockets that clients connect to. A failure to listen is one sentence that says what to do. */

import { existsSync, lstatSync, rmSync } from 'node:fs';
import net from 'node:net';
import { dirname } from 'node:path';
import { AF_VSOCK, socketKindOf, unixPathOf } from '../sys/index.ts';
import { checkListening, type PassedDescriptor } from './activation.ts';
import { formatAddress, type ListenAddress, type ServeAddress } from './addresses.ts';
import { DaemonError } from './errors.ts';
import type { SocketStream } from './socket-stream.ts';
import { applyAccess, PRIVATE_ACCESS, type UnixAccess } from './unix-access.ts';
import { acceptClients, openVsock, vsockAddressOf } from './vsock-listener.ts';

const BACKLOG = 1024;

export interface Listener {
  /** Where it really listens: port 0 has become a number. */
  readonly address: ServeAddress;
  /** Stops accepting, and removes a Unix socket's file if we made it. */
  close(): void;
}

export interface ListenOptions {
  /** Of Unix sockets that we make. */
  readonly access: UnixAccess;
  /** Silence after which TCP asks whether the other end is still there; 0 for never. */
  readonly keepAliveMs: number;
  readonly onClient: (socket: net.Socket) => void;
  /** The same for vsock, with who it is. */
  readonly onVsockClient?: (stream: SocketStream, peer: string) => void;
  /** A server of another kind that takes the sockets, e.g. one for HTTP, in place of `onClient`. */
  readonly server?: net.Server;
  /** Clients cannot be taken in at the moment, for want of descriptors above all. */
  readonly onTrouble: (error: Error) => void;
}

function createServer(options: ListenOptions): net.Server {
  const { keepAliveMs, onClient, onTrouble } = options;
  const server =
    options.server ??
    net
      .createServer({
        allowHalfOpen: true,
        noDelay: true,
        keepAlive: keepAliveMs > 0,
        keepAliveInitialDelay: keepAliveMs,
      })
      .on('connection', onClient);
  server.once('listening', () => server.on('error', onTrouble));
  return server;
}

/** Listens, and hands each client to `onClient`. @throws DaemonError */
export async function listen(address: ServeAddress, options: ListenOptions): Promise<Listener> {
  if (address.kind === 'vsock') return vsockListener(openVsock(address, BACKLOG), options);
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  const server = createServer(options);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(address, error)));
    // The umask is the process's, and nothing else creates files while we start.
    const umaskBefore = process.umask(0o777 & ~PRIVATE_ACCESS.mode);
    if (address.kind === 'unix') server.listen({ path: address.path, backlog: BACKLOG }, resolve);
    else server.listen({ host: address.host, port: address.port, backlog: BACKLOG }, resolve);
    process.umask(umaskBefore);
  });
  try {
    if (address.kind === 'unix') applyAccess(address.path, options.access);
  } catch (error) {
    server.close();
    throw error;
  }
  const actual = server.address();
  const isTcp = address.kind === 'tcp' && typeof actual === 'object' && actual !== null;
  return {
    address: isTcp ? { ...address, port: actual.port } : address,
    close: () => {
      server.close();
    },
  };
}

function vsockListener(fd: number, options: ListenOptions): Listener {
  const { onVsockClient: onClient = (stream) => stream.destroy(), onTrouble } = options;
  const address = vsockAddressOf(fd);
  return { address, close: acceptClients(fd, { onClient, onTrouble }) };
}

/** Takes clients from a socket that the service manager listens on. @throws DaemonError */
export async function listenOnPassed(
  passed: PassedDescriptor,
  options: ListenOptions,
): Promise<Listener> {
  checkListening(passed);
  if (socketKindOf(passed.fd)?.domain === AF_VSOCK) return vsockListener(passed.fd, options);
  const server = createServer(options);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const what = `cannot listen on descriptor ${passed.fd} (${passed.name})`;
      reject(new DaemonError(`${what}: ${error.message}`, { cause: error }));
    });
    server.listen({ fd: passed.fd }, resolve);
  });
  return {
    address: addressOf(server, passed.fd),
    close: () => {
      server.close();
    },
  };
}

function addressOf(server: net.Server, fd: number): ListenAddress {
  const actual = server.address();
  if (typeof actual === 'object' && actual !== null) {
    return { kind: 'tcp', host: actual.address, port: actual.port };
  }
  return { kind: 'unix', path: unixPathOf(fd) };
}

/** A socket that a dead server left behind is replaced; one that answers is somebody's. */
async function removeStaleSocket(path: string): Promise<void> {
  let isSocket: boolean;
  try {
    isSocket = lstatSync(path).isSocket();
  } catch {
    return; // Nothing there; any other trouble shows when we listen.
  }
  if (!isSocket) {
    throw new DaemonError(`${path} exists and is not a socket: choose another path, or remove it`);
  }
  const code = await new Promise<string>((resolve) => {
    const probe = net.connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve('alive');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
  });
  if (code === 'alive') {
    throw new DaemonError(
      `${path} is in use by a running server: stop that server, or choose another path`,
    );
  }
  if (code === 'ECONNREFUSED') rmSync(path, { force: true });
}

function listenError(address: ListenAddress, error: NodeJS.ErrnoException): DaemonError {
  const where = formatAddress(address);
  const options = { cause: error };
  switch (error.code ?? '') {
    case 'EADDRINUSE':
      return new DaemonError(
        `${where} is in use by another program: stop it, or choose another address`,
        options,
      );
    case 'EACCES':
      // libuv reports a missing folder in this way, too.
      if (address.kind === 'unix' && !existsSync(dirname(address.path))) {
        const folder = dirname(address.path);
        return new DaemonError(
          `the folder ${folder} of the socket does not exist: create it`,
          options,
        );
      }
      return new DaemonError(
        address.kind === 'unix'
          ? `may not create the socket ${where}: its folder is not writable for this user`
          : `may not listen at ${where}: ports below 1024 need CAP_NET_BIND_SERVICE`,
        options,
      );
    case 'EADDRNOTAVAIL':
      return new DaemonError(`this host has no address ${where}: see \`ip address\``, options);
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new DaemonError(`${where}: the host name is not known, use an address`, options);
    case 'ENOENT':
      return new DaemonError(
        `the folder of the socket ${where} does not exist: create it`,
        options,
      );
    default:
      return new DaemonError(`cannot listen at ${where}: ${error.message}`, options);
  }
}
