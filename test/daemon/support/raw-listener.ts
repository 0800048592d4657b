// Listening sockets that this process never accepts from, made with the C library as a service
// manager makes them.
import { allocateMemory, errno, errnoName, libc } from '../../../src/sys/index.ts';

const AF_UNIX = 1;
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const BACKLOG = 16;

function check(what: string, result: number): number {
  if (result < 0) throw new Error(`${what}: ${errnoName(errno())}`);
  return result;
}

/** A socket bound to `address`, the bytes of a struct sockaddr. */
function bind(domain: number, type: number, address: Uint8Array): number {
  const fd = check('socket', libc.socket(domain, type | SOCK_CLOEXEC, 0));
  const memory = allocateMemory(address.length);
  new Uint8Array(memory.buffer).set(address);
  check('bind', libc.bind(fd, memory.address, address.length));
  return fd;
}

function unixAddress(path: string): Uint8Array {
  return Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(path), Buffer.alloc(1)]);
}

/** A Unix socket that listens at `path`. The caller closes it. */
export function listenUnix(path: string, isBlocking: boolean = true): number {
  const type = isBlocking ? SOCK_STREAM : SOCK_STREAM | SOCK_NONBLOCK;
  const fd = bind(AF_UNIX, type, unixAddress(path));
  check('listen', libc.listen(fd, BACKLOG));
  return fd;
}

/** A TCP socket that listens at a port of 127.0.0.1. */
export function listenTcp(port: number): number {
  const address = Buffer.from([
    AF_INET,
    0,
    port >> 8,
    port & 255,
    127,
    0,
    0,
    1,
    ...Array(8).fill(0),
  ]);
  const fd = bind(AF_INET, SOCK_STREAM, address);
  check('listen', libc.listen(fd, BACKLOG));
  return fd;
}

/** A Unix socket for datagrams. An `@` in front of `path` makes it abstract. */
export function bindDatagrams(path: string): number {
  if (!path.startsWith('@')) return bind(AF_UNIX, SOCK_DGRAM, unixAddress(path));
  return bind(
    AF_UNIX,
    SOCK_DGRAM,
    Buffer.concat([Buffer.from([AF_UNIX, 0, 0]), Buffer.from(path.slice(1))]),
  );
}

const MSG_DONTWAIT = 0x40;

/** The datagrams that wait at `fd`, as text. */
export function takeDatagrams(fd: number): string[] {
  const memory = allocateMemory(65_536);
  const texts: string[] = [];
  for (;;) {
    const length = libc.recv(fd, memory.address, memory.lengthBytes, MSG_DONTWAIT);
    if (length < 0) return texts;
    texts.push(Buffer.from(memory.buffer, 0, length).toString());
  }
}
