/** Where a server listens: parsing of the command line's addresses, and URIs that name them. */

import { UsageError } from './errors.ts';

/** The port that IANA gave to NBD. */
export const NBD_PORT = 10809;

/** A place to listen at. */
export type ListenAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** A port of vsock, at one CID of this machine or, without, at all of them. */
export interface VsockAddress {
  readonly kind: 'vsock';
  readonly cid: number | undefined;
  readonly port: number;
}

/** A place where NBD is served. */
export type ServeAddress = ListenAddress | VsockAddress;

/** Stands for any port, or any CID. */
const U32_MAX = 0xffff_ffff;

/** Longest path that fits into a sockaddr_un, with its NUL (unix(7)). */
const UNIX_PATH_BYTES_MAX = 107;

/** The path of a Unix socket. @throws UsageError */
export function parseUnixAddress(path: string): ListenAddress {
  if (path === '') throw new UsageError('--unix needs the path of a socket');
  const lengthBytes = Buffer.byteLength(path);
  if (lengthBytes > UNIX_PATH_BYTES_MAX) {
    throw new UsageError(
      `--unix ${path}: the path has ${lengthBytes} bytes, a socket's may have ${UNIX_PATH_BYTES_MAX}`,
    );
  }
  return { kind: 'unix', path };
}

/** `HOST:PORT`, `[V6]:PORT`, `:PORT` for all addresses; port 0 for any. @throws UsageError */
export function parseTcpAddress(text: string): ListenAddress {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new UsageError(`${text} is not an address: use HOST:PORT, [IPV6]:PORT or :PORT`);
  }
  const host = match[1] ?? match[2] ?? '';
  return { kind: 'tcp', host: host === '' ? '::' : host, port };
}

/** An address of TCP, `vsock:PORT` or `vsock:CID:PORT`; port 0 for any. @throws UsageError */
export function parseServeAddress(text: string): ServeAddress {
  if (!text.startsWith('vsock:')) return parseTcpAddress(text);
  const match = /^vsock:(?:(\d{1,10}):)?(\d{1,10})$/.exec(text);
  const cid = match?.[1] === undefined ? undefined : Number(match[1]);
  const port = Number(match?.[2]);
  if (match === null || port >= U32_MAX || (cid ?? 0) >= U32_MAX) {
    throw new UsageError(`${text} is not an address: use vsock:PORT or vsock:CID:PORT`);
  }
  return { kind: 'vsock', cid, port };
}

/** The address of `--metrics`: HOST:PORT, or a path, which has a slash. @throws UsageError */
export function parseMetricsAddress(text: string): ListenAddress {
  return text.includes('/') ? parseUnixAddress(text) : parseTcpAddress(text);
}

/**
 * The NBD URI of an export at an address, as clients of libnbd and qemu take it; `isSecure` for one
 * that is served over TLS alone.
 */
export function nbdUri(address: ServeAddress, exportName: string, isSecure = false): string {
  const scheme = isSecure ? 'nbds' : 'nbd';
  const name = encodeURIComponent(exportName);
  if (address.kind === 'unix') {
    return `${scheme}+unix:///${name}?socket=${encodeURI(address.path).replaceAll('&', '%26')}`;
  }
  if (address.kind === 'vsock') {
    return `${scheme}+vsock://${address.cid ?? ''}:${address.port}/${name}`;
  }
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${scheme}://${host}:${address.port}/${name}`;
}

/** An address for people: a path, or host and port. */
export function formatAddress(address: ServeAddress): string {
  if (address.kind === 'unix') return address.path;
  if (address.kind === 'vsock') {
    return address.cid === undefined
      ? `vsock:${address.port}`
      : `vsock:${address.cid}:${address.port}`;
  }
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}
