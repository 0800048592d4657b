/** Listening on vsock, with the means of src/sys, as listener.ts does with those of Node. */

import {
  acceptVsock,
  closeFd,
  listenVsock,
  localCid,
  SysError,
  VMADDR_ANY,
  VMADDR_CID_LOCAL,
  type VsockName,
  vsockNameOf,
  watchReadable,
} from '../sys/index.ts';
import type { VsockAddress } from './addresses.ts';
import { DaemonError } from './errors.ts';
import { SocketStream } from './socket-stream.ts';

/** After a failure to accept, above all for want of descriptors. */
const RETRY_MS = 100;

/** What happens at a listening socket. */
export interface VsockEvents {
  readonly onClient: (stream: SocketStream, peer: string) => void;
  readonly onTrouble: (error: Error) => void;
}

/** Listens, and returns the socket. @throws DaemonError */
export function openVsock(address: VsockAddress, backlog: number): number {
  const { cid = VMADDR_ANY, port } = address;
  try {
    // Port 0 is a port like others there, and nobody's wish: as elsewhere, it means any.
    return listenVsock({ cid, port: port === 0 ? VMADDR_ANY : port }, backlog);
  } catch (error) {
    if (error instanceof SysError)
      throw new DaemonError(vsockProblem(address, error), { cause: error });
    throw error;
  }
}

/** Where it listens, as a client in another machine would have to call it. */
export function vsockAddressOf(fd: number): VsockAddress {
  const { cid, port } = vsockNameOf(fd);
  return { kind: 'vsock', cid: cid === VMADDR_ANY ? (localCid() ?? VMADDR_CID_LOCAL) : cid, port };
}

/** Takes clients from a listening socket until the returned function is called, which closes it. */
export function acceptClients(fd: number, { onClient, onTrouble }: VsockEvents): () => void {
  let retry: NodeJS.Timeout | undefined;
  const take = (): void => {
    try {
      for (;;) {
        const client = acceptVsock(fd);
        if (client === undefined) break;
        onClient(new SocketStream(client.fd), peerOf(client.peer));
      }
      watch.rearm();
    } catch (error) {
      onTrouble(error as Error);
      // The client still waits, so the next event would come at once.
      retry = setTimeout(() => watch.rearm(), RETRY_MS);
    }
  };
  const watch = watchReadable(fd, take);
  return () => {
    clearTimeout(retry);
    watch.stop();
    closeFd(fd);
  };
}

function peerOf({ cid, port }: VsockName): string {
  return `vsock:${cid}:${port}`;
}

function vsockProblem({ cid, port }: VsockAddress, error: SysError): string {
  const where = cid === undefined ? `vsock:${port}` : `vsock:${cid}:${port}`;
  switch (error.code) {
    case 'EAFNOSUPPORT':
      return `cannot listen at ${where}: this kernel has no vsock; use TCP or a Unix socket`;
    case 'EADDRINUSE':
      return `${where} is in use by another program: stop it, or choose another port`;
    case 'EACCES':
      return `may not listen at ${where}: ports below 1024 need CAP_NET_BIND_SERVICE`;
    case 'EADDRNOTAVAIL':
      return `this machine does not have the CID of ${where}: leave it out`;
    default:
      return `cannot listen at ${where}: ${error.message}`;
  }
}
