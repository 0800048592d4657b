/** A connection to an NBD server on a Unix socket, up to the moment that a kernel can have it. */

import { connect, type Socket } from 'node:net';
import { type DetachedSocket, detachSocket } from '../daemon/index.ts';
import { type ExportDescription, NegotiationError, negotiate } from './negotiate.ts';

/** A connection after the handshake; the caller closes the descriptor. */
export interface ServerConnection {
  readonly fd: number;
  readonly description: ExportDescription;
}

/**
 * Connects, and negotiates the export. A server that listens and does not answer yet is waited for.
 *
 * @throws NegotiationError when the server refuses; a temporary one when it went away
 */
export async function connectServer(
  path: string,
  exportName: string,
  signal: AbortSignal,
): Promise<ServerConnection> {
  const socket = connect({ path, signal });
  try {
    const description = await runNegotiation(socket, exportName);
    const detached: DetachedSocket | undefined = detachSocket(socket, new Uint8Array(0));
    if (detached === undefined) throw wentAway();
    return { fd: detached.fd, description };
  } finally {
    socket.destroy();
  }
}

function runNegotiation(socket: Socket, exportName: string): Promise<ExportDescription> {
  const negotiation = negotiate(exportName);
  return new Promise((resolve, reject) => {
    socket.once('error', (error: NodeJS.ErrnoException) => {
      const isNobody = error.code === 'ENOENT' || error.code === 'ECONNREFUSED';
      const reason = isNobody ? `nobody listens there (${error.code})` : error.message;
      reject(new NegotiationError(reason, true));
    });
    socket.once('close', () => reject(wentAway()));
    let received = Buffer.alloc(0);
    let step = negotiation.next(received);
    const advance = (): void => {
      try {
        while (step.done !== true && received.length >= step.value.receiveBytes) {
          const { receiveBytes } = step.value;
          const bytes = received.subarray(0, receiveBytes);
          received = received.subarray(receiveBytes);
          step = negotiation.next(bytes);
          if (step.done !== true && step.value.send !== undefined) socket.write(step.value.send);
        }
        if (step.done !== true) return;
        socket.off('data', onData).pause();
        if (received.length > 0) throw new NegotiationError('the server breaks the NBD protocol');
        resolve(step.value);
      } catch (error) {
        reject(error);
      }
    };
    const onData = (bytes: Buffer): void => {
      received = Buffer.concat([received, bytes]);
      advance();
    };
    socket.on('data', onData);
  });
}

function wentAway(): NegotiationError {
  return new NegotiationError('the server went away during the handshake', true);
}
