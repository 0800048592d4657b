/**
 * From a stream of Node's to a socket that a lane can own. A plain socket leaves Node altogether.
 * Anything else, TLS above all, stays on the main thread and is joined to the lane by a pair of
 * connected sockets; the bytes then take one more hop.
 */

import net from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { createSocketPair, duplicateFd } from '../sys/index.ts';
import { SocketStream } from './socket-stream.ts';

/** A client's socket without Node. */
export interface DetachedSocket {
  /** The caller closes it. */
  readonly fd: number;
  /** What was read from it already. */
  readonly bytes: Uint8Array;
}

/** Whether a stream is a socket that can leave Node. */
export function isPlainSocket(stream: Duplex): stream is net.Socket | SocketStream {
  if (stream instanceof SocketStream) return true;
  return stream instanceof net.Socket && !(stream instanceof tls.TLSSocket);
}

/**
 * Takes the descriptor of a socket away from Node: a duplicate lives on, Node closes its own.
 * Everything that Node has read by then is taken along, behind `rest`; nothing more can be read in
 * between, because all of this happens within one turn of the event loop. Undefined when the socket
 * is closed already.
 */
export function detachSocket(
  socket: net.Socket | SocketStream,
  rest: Uint8Array,
): DetachedSocket | undefined {
  if (socket.destroyed) return undefined;
  const fd = socket instanceof SocketStream ? socket.fd : descriptorOf(socket);
  if (fd === undefined || fd < 0) return undefined;
  const buffered = socket.read() as Buffer | null;
  const bytes = buffered === null ? Uint8Array.from(rest) : Buffer.concat([rest, buffered]);
  const copy = duplicateFd(fd);
  socket.destroy();
  return { fd: copy, bytes };
}

/** Node has no public way to a socket's descriptor; `_handle.fd` has been there since 2012. */
function descriptorOf(socket: net.Socket): number | undefined {
  return (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
}

/** A stream that is joined to a socket, until either side has ended. */
export interface Bridge {
  /** The far end of the pair; the caller's to close. */
  readonly fd: number;
  /** Resolves when everything has been carried over and both ends are closed. */
  readonly closed: Promise<void>;
  /** Ends it now. */
  destroy(): void;
}

/**
 * Joins `stream` to a new socket. Each direction waits for its reader, and a half that ends, ends
 * the same half on the other side.
 */
export function bridgeStream(stream: Duplex): Bridge {
  const [near, far] = createSocketPair();
  // Two descriptors of one socket: when the lane reads no more, a write fails and takes its Node
  // socket with it, and what the lane has said last must still be read.
  const nearCopy = duplicateFd(near);
  const reader = new net.Socket({ fd: near, readable: true, writable: false });
  const writer = new net.Socket({ fd: nearCopy, readable: false, writable: true });
  const destroy = (): void => {
    reader.destroy();
    writer.destroy();
    stream.destroy();
  };
  const closed = Promise.all([isClosed(reader), isClosed(writer), isClosed(stream)]);
  stream.on('error', destroy);
  stream.on('close', destroy);
  reader.on('error', destroy);
  writer.on('error', () => writer.destroy());
  // The lane is done, and the client has been given all of it: no one is left to listen.
  stream.on('finish', destroy);
  stream.pipe(writer);
  reader.pipe(stream);
  return { fd: far, closed: closed.then(() => undefined), destroy };
}

function isClosed(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) resolve();
    else stream.once('close', () => resolve());
  });
}
