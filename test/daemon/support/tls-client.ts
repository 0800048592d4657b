// An NBD client over TLS: a small go-between that speaks STARTTLS to the server, so that the plain
// test client behind it need not know. Written from the section "TLS support" of doc/proto.md.
import { connect, createServer, type NetConnectOpts, type Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import type { Test } from 'tap';
import { NbdClient } from '../../support/nbd-client.ts';
import { makeFolder } from './simulated.ts';

const STARTTLS = Buffer.from('49484156454f50540000000500000000', 'hex');
const STARTTLS_ACK = '0003e889045565a9000000050000000100000000';

/** The next `length` bytes of a socket. */
export async function take(socket: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const bytes = socket.read(length) as Buffer | null;
    if (bytes !== null) return bytes;
    await new Promise<void>((resolve, reject) => {
      socket.once('readable', resolve);
      socket.once('end', () => reject(new Error('the server closed the connection')));
      socket.once('error', reject);
    });
  }
}

/** When the server has ended the connection, which it may have done already. */
export async function closed(socket: Socket): Promise<void> {
  socket.on('error', () => undefined).resume();
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
}

/** Connects, answers the greeting with `flags`, and sends STARTTLS with `behind` in one piece. */
export async function sayStartTls(
  server: NetConnectOpts,
  behind: Buffer = Buffer.alloc(0),
): Promise<{ socket: Socket; greeting: Buffer }> {
  const socket = connect(server);
  const greeting = await take(socket, 18);
  socket.write(Buffer.from([0, 0, 0, 3]));
  socket.write(Buffer.concat([STARTTLS, behind]));
  return { socket, greeting };
}

/** TLS with the server, behind the greeting. @throws Error when either side refuses the other */
export async function startTls(
  server: NetConnectOpts,
  options: ConnectionOptions,
): Promise<{ secure: TLSSocket; greeting: Buffer }> {
  const { socket, greeting } = await sayStartTls(server);
  const reply = (await take(socket, 20)).toString('hex');
  if (reply !== STARTTLS_ACK) throw new Error(`STARTTLS was answered with ${reply}`);
  const secure = connectTls({ socket, servername: 'localhost', ...options });
  await new Promise<void>((resolve, reject) => {
    secure.once('secureConnect', resolve);
    secure.once('error', reject);
    secure.once('close', () => reject(new Error('the server closed the connection')));
  });
  secure.on('error', () => secure.destroy());
  return { secure, greeting };
}

/** A test client whose bytes go through TLS. It has not greeted yet. */
export async function connectThroughTls(
  t: Test,
  server: NetConnectOpts,
  options: ConnectionOptions,
): Promise<NbdClient> {
  const { secure, greeting } = await startTls(server, options);
  const path = join(makeFolder(t), 'plain.sock');
  const listener = createServer({ allowHalfOpen: true }, (plain) => {
    listener.close();
    plain.on('error', () => secure.destroy());
    // The server may have ended it before anybody listened for that.
    if (secure.destroyed) plain.destroy();
    else secure.on('close', () => plain.destroy());
    plain.write(greeting);
    take(plain, 4)
      .then(() => {
        plain.pipe(secure);
        secure.pipe(plain);
      })
      .catch(() => secure.destroy());
  });
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  const client = await NbdClient.connect({ path });
  t.teardown(() => {
    secure.destroy();
    client.bytes.destroy();
  });
  return client;
}

/** A test client in transmission, over TLS. */
export async function openThroughTls(
  t: Test,
  server: NetConnectOpts,
  options: ConnectionOptions,
): Promise<NbdClient> {
  const client = await connectThroughTls(t, server, options);
  await client.greet();
  await client.go();
  return client;
}
