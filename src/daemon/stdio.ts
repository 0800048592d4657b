/** The one client of `--stdio`: whoever started us, on standard input and output. */

import { closeSync, fstatSync, openSync } from 'node:fs';
import net from 'node:net';
import { Duplex } from 'node:stream';
import { duplicateFd, socketKindOf } from '../sys/index.ts';
import { DaemonError } from './errors.ts';

const STDIN = 0;
const STDOUT = 1;

/**
 * Takes standard input and output away from everything else in this process, and gives them as one
 * stream: a socket when both are one, as inetd and libnbd pass it, else two pipes.
 *
 * @throws DaemonError when they are files, terminals or nothing.
 */
export function openStdio(): Duplex {
  try {
    const isOneSocket =
      socketKindOf(STDIN) !== undefined && fstatSync(STDIN).ino === fstatSync(STDOUT).ino;
    const stream = isOneSocket ? openSocket() : openPipes();
    // The client must see the end when the last copy is closed, so these two may not be copies.
    closeSync(STDIN);
    closeSync(STDOUT);
    // The lowest free numbers are given first: nothing else may ever be found under these two.
    openSync('/dev/null', 'r');
    openSync('/dev/null', 'w');
    return stream;
  } catch (error) {
    throw new DaemonError(
      '--stdio needs a socket, or pipes, as standard input and output: have it started by inetd, ' +
        'or by the NBD client itself',
      { cause: error },
    );
  }
}

function openSocket(): Duplex {
  const fd = duplicateFd(STDIN);
  return new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
}

function openPipes(): Duplex {
  const readable = new net.Socket({ fd: duplicateFd(STDIN), readable: true, writable: false });
  const writable = new net.Socket({ fd: duplicateFd(STDOUT), readable: false, writable: true });
  const stream = Duplex.from({ readable, writable });
  // It closes what it writes to, and leaves what it reads from open, which would keep us alive.
  stream.once('close', () => readable.destroy());
  return stream;
}
