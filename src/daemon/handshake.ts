/**
 * The handshake of one client, on the main thread: lanes never see a client that has not said which
 * export it wants. When it is done, the socket's descriptor leaves Node and goes to a lane.
 */

import type net from 'node:net';
import {
  type ExportCatalog,
  type ExportEntry,
  Negotiation,
  type NegotiationResult,
} from 'nbd-server-ts/protocol';
import { duplicateFd } from '../sys/index.ts';

/** A client that has chosen an export. */
export interface NegotiatedClient<Entry extends ExportEntry> {
  readonly result: NegotiationResult<Entry>;
  /** Its socket, now ours to close. */
  readonly fd: number;
  /** What it sent behind the handshake. */
  readonly bytes: Uint8Array;
}

export interface HandshakeOutcome<Entry extends ExportEntry> {
  readonly client?: NegotiatedClient<Entry>;
  /** Why there is no client, when the client is to blame. */
  readonly reason?: string;
}

export interface HandshakeOptions {
  readonly timeoutMs: number;
}

/** Leads the handshake to its end, which the time limit guarantees. Never rejects. */
export function negotiate<Entry extends ExportEntry>(
  socket: net.Socket,
  catalog: ExportCatalog<Entry>,
  options: HandshakeOptions,
): Promise<HandshakeOutcome<Entry>> {
  return new Promise((resolve) => {
    const negotiation = new Negotiation(catalog);
    const reasons: string[] = [];
    let isOver = false;

    const end = (outcome: HandshakeOutcome<Entry>): void => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      socket.removeAllListeners('readable');
      if (outcome.client === undefined) socket.destroy();
      resolve(outcome);
    };
    const fail = (reason: string | undefined): void => end(reason === undefined ? {} : { reason });

    const timer = setTimeout(
      () => fail(`the handshake took longer than ${options.timeoutMs} ms`),
      options.timeoutMs,
    );
    // A socket without an 'error' listener would end the process.
    socket.on('error', () => fail(undefined));
    socket.on('close', () => fail(undefined));
    socket.on('end', () => fail('the client left during the handshake'));

    const transmit = (rest: Uint8Array): void => {
      const result = negotiation.result;
      if (isOver || result === undefined) return;
      const detached = detach(socket, rest);
      if (detached === undefined) fail('the client left during the handshake');
      else end({ client: { result, ...detached } });
    };

    socket.on('readable', () => {
      for (;;) {
        const chunk = isOver ? null : (socket.read() as Buffer | null);
        if (chunk === null) return;
        const step = negotiation.receive(chunk);
        if (step.reason !== undefined) reasons.push(step.reason);
        if (step.next === 'transmission') {
          socket.removeAllListeners('readable');
          const rest = chunk.subarray(step.consumed);
          if (step.send === undefined) transmit(rest);
          else socket.write(step.send, () => transmit(rest));
          return;
        }
        if (step.next === 'close' || step.next === 'startTls') {
          const reason = reasons.join('; ');
          isOver = true;
          clearTimeout(timer);
          socket.end(step.send ?? new Uint8Array(0), () => socket.destroy());
          resolve(reason === '' ? {} : { reason });
          return;
        }
        if (step.send !== undefined) socket.write(step.send);
      }
    });
    socket.write(negotiation.greeting());
  });
}

/**
 * Takes the descriptor of a socket away from Node: a duplicate lives on, Node closes its own.
 * Everything that Node has read by then is taken along; nothing more can be read in between,
 * because all of this happens within one turn of the event loop.
 */
function detach(
  socket: net.Socket,
  rest: Uint8Array,
): { readonly fd: number; readonly bytes: Uint8Array } | undefined {
  // Node has no public way to a socket's descriptor; `_handle.fd` has been there since 2012.
  const fd = (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
  if (fd === undefined || fd < 0) return undefined;
  const buffered = socket.read() as Buffer | null;
  const bytes = buffered === null ? Uint8Array.from(rest) : Buffer.concat([rest, buffered]);
  const copy = duplicateFd(fd);
  socket.destroy();
  return { fd: copy, bytes };
}
