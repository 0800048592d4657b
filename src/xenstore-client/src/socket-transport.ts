/**
 * XenStore over a stream socket: what xenstored offers in the domain that it runs in (dom0), and
 * what a simulated server offers anywhere.
 */
import { connect, type Socket } from 'node:net';
import { XenStoreConnectError } from './errors.ts';
import type { Transport, TransportHandlers } from './transport.ts';

/** Where xenstored listens, in the order of trying. */
export const XENSTORED_SOCKET_PATHS: readonly string[] = [
  '/run/xenstored/socket',
  '/var/run/xenstored/socket',
];

/** A transport on a connected socket, which it owns from now on. */
export class SocketTransport implements Transport {
  readonly #socket: Socket;
  #handlers: TransportHandlers | undefined;
  #error: Error | undefined;
  #isClosed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Always at least one listener: an 'error' event without one would end the process.
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('close', () => this.#closed());
  }

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
    this.#socket.on('data', (chunk) => handlers.onData(chunk));
    // The socket may have been closed between its connection and now.
    if (this.#isClosed) queueMicrotask(() => handlers.onClose(this.#error));
  }

  send(packet: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(packet);
  }

  close(): void {
    this.#socket.destroy();
  }

  #closed(): void {
    this.#isClosed = true;
    this.#handlers?.onClose(this.#error);
  }
}

/**
 * Connects to xenstored's Unix socket: at `path`, or at the first of
 * {@link XENSTORED_SOCKET_PATHS} that exists.
 * @throws (rejects) XenStoreConnectError; its `systemCode` is `ENOENT` if there is no socket,
 *   `ECONNREFUSED` if nobody listens, `EACCES` if this user may not.
 */
export async function openUnixSocket(path?: string): Promise<Transport> {
  const paths = path === undefined ? XENSTORED_SOCKET_PATHS : [path];
  let lastError: NodeJS.ErrnoException | undefined;
  for (const candidate of paths) {
    try {
      return new SocketTransport(await connectSocket(candidate));
    } catch (error) {
      lastError = error as NodeJS.ErrnoException;
      if (lastError.code !== 'ENOENT') throw connectError(candidate, lastError);
    }
  }
  throw connectError(paths.join(' or '), lastError);
}

function connectSocket(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}

const advice: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket. Is xenstored running in this domain?',
  ECONNREFUSED: 'nobody listens there. Is xenstored running?',
  EACCES: 'this user may not connect. Run as root or as a member of the group that owns it.',
};

function connectError(where: string, cause: NodeJS.ErrnoException | undefined): Error {
  const code = cause?.code;
  const why = (code === undefined ? undefined : advice[code]) ?? `${cause?.message}.`;
  return new XenStoreConnectError(`Cannot connect to XenStore at ${where}: ${why}`, code, {
    cause,
  });
}
