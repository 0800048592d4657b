/**
 * The C library through koffi: the only module of the project that loads native code.
 *
 * Addresses are Numbers: user-space addresses stay below 2^47 on x86-64 and 2^48 on arm64, so they
 * are exact. Every declaration has fixed arguments, because koffi's variadic calls are slower, and
 * none uses a koffi struct, because filling one costs more than the system call.
 *
 * All functions return what the system call returns: -1 on failure, with the reason in
 * {@link errno}. They do not throw; the other modules of src/sys wrap those that callers should not
 * have to check.
 */

import koffi from 'koffi';

// The running program is linked against its libc, glibc or musl: the null handle finds either.
const library = koffi.load(null);

const ADDRESS = 'uintptr_t';

/** The calls, with the arguments of their manual pages. */
export interface Libc {
  open: (path: string, flags: number, mode: number) => number;
  close: (fd: number) => number;
  read: (fd: number, address: number, size: number) => number;
  write: (fd: number, address: number, size: number) => number;
  readv: (fd: number, address: number, count: number) => number;
  writev: (fd: number, address: number, count: number) => number;
  preadv: (fd: number, address: number, count: number, offset: number) => number;
  pwritev: (fd: number, address: number, count: number, offset: number) => number;
  fdatasync: (fd: number) => number;
  fallocate: (fd: number, mode: number, offset: number, length: number) => number;
  ftruncate: (fd: number, length: number) => number;
  ioctl: (fd: number, request: number, address: number) => number;
  fcntl: (fd: number, command: number, argument: number) => number;
  mmap: (
    address: number,
    size: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ) => number | bigint;
  munmap: (address: number, size: number) => number;
  madvise: (address: number, size: number, advice: number) => number;
  // These two return their first argument, which nobody needs: a number object for each call.
  memcpy: (target: number, source: number, size: number) => void;
  memset: (target: number, byte: number, size: number) => void;
  memfdCreate: (name: string, flags: number) => number;
  eventfd: (initial: number, flags: number) => number;
  epollCreate1: (flags: number) => number;
  epollCtl: (fd: number, operation: number, target: number, event: number) => number;
  epollWait: (fd: number, events: number, maxEvents: number, timeoutMs: number) => number;
  poll: (fds: number, count: number, timeoutMs: number) => number;
  socket: (domain: number, type: number, protocol: number) => number;
  socketpair: (domain: number, type: number, protocol: number, fds: number) => number;
  bind: (fd: number, address: number, length: number) => number;
  listen: (fd: number, backlog: number) => number;
  connect: (fd: number, address: number, length: number) => number;
  accept4: (fd: number, address: number, lengthAddress: number, flags: number) => number;
  getsockname: (fd: number, address: number, lengthAddress: number) => number;
  getsockopt: (
    fd: number,
    level: number,
    name: number,
    address: number,
    lengthAddress: number,
  ) => number;
  setsockopt: (fd: number, level: number, name: number, address: number, length: number) => number;
  recv: (fd: number, address: number, size: number, flags: number) => number;
  send: (fd: number, address: number, size: number, flags: number) => number;
  sendmsg: (fd: number, message: number, flags: number) => number;
  shutdown: (fd: number, how: number) => number;
  prctl: (option: number, arg2: number, arg3: number, arg4: number, arg5: number) => number;
  clockGettime: (clock: number, timespec: number) => number;
  schedGetcpu: () => number;
  schedYield: () => number;
  schedGetaffinity: (tid: number, size: number, mask: number) => number;
  schedSetaffinity: (tid: number, size: number, mask: number) => number;
  schedSetscheduler: (tid: number, policy: number, parameter: number) => number;
  /** Ends the process at once, whatever its threads are blocked in. */
  exitNow: (code: number) => void;
}

function declare<Call>(name: string, result: string, args: string[]): Call {
  return library.func(name, result, args) as unknown as Call;
}

/** The calls of this process's C library. */
export const libc: Libc = {
  open: declare('open', 'int', ['str', 'int', 'int']),
  close: declare('close', 'int', ['int']),
  read: declare('read', 'long', ['int', ADDRESS, 'size_t']),
  write: declare('write', 'long', ['int', ADDRESS, 'size_t']),
  readv: declare('readv', 'long', ['int', ADDRESS, 'int']),
  writev: declare('writev', 'long', ['int', ADDRESS, 'int']),
  preadv: declare('preadv', 'long', ['int', ADDRESS, 'int', 'int64_t']),
  pwritev: declare('pwritev', 'long', ['int', ADDRESS, 'int', 'int64_t']),
  fdatasync: declare('fdatasync', 'int', ['int']),
  fallocate: declare('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']),
  ftruncate: declare('ftruncate', 'int', ['int', 'int64_t']),
  ioctl: declare('ioctl', 'int', ['int', 'ulong', ADDRESS]),
  fcntl: declare('fcntl', 'int', ['int', 'int', 'long']),
  mmap: declare('mmap', ADDRESS, [ADDRESS, 'size_t', 'int', 'int', 'int', 'int64_t']),
  munmap: declare('munmap', 'int', [ADDRESS, 'size_t']),
  memcpy: declare('memcpy', 'void', [ADDRESS, ADDRESS, 'size_t']),
  memset: declare('memset', 'void', [ADDRESS, 'int', 'size_t']),
  madvise: declare('madvise', 'int', [ADDRESS, 'size_t', 'int']),
  memfdCreate: declare('memfd_create', 'int', ['str', 'uint']),
  eventfd: declare('eventfd', 'int', ['uint', 'int']),
  epollCreate1: declare('epoll_create1', 'int', ['int']),
  epollCtl: declare('epoll_ctl', 'int', ['int', 'int', 'int', ADDRESS]),
  epollWait: declare('epoll_wait', 'int', ['int', ADDRESS, 'int', 'int']),
  poll: declare('poll', 'int', [ADDRESS, 'ulong', 'int']),
  socket: declare('socket', 'int', ['int', 'int', 'int']),
  socketpair: declare('socketpair', 'int', ['int', 'int', 'int', ADDRESS]),
  bind: declare('bind', 'int', ['int', ADDRESS, 'uint']),
  listen: declare('listen', 'int', ['int', 'int']),
  connect: declare('connect', 'int', ['int', ADDRESS, 'uint']),
  accept4: declare('accept4', 'int', ['int', ADDRESS, ADDRESS, 'int']),
  getsockname: declare('getsockname', 'int', ['int', ADDRESS, ADDRESS]),
  getsockopt: declare('getsockopt', 'int', ['int', 'int', 'int', ADDRESS, ADDRESS]),
  setsockopt: declare('setsockopt', 'int', ['int', 'int', 'int', ADDRESS, 'uint']),
  recv: declare('recv', 'long', ['int', ADDRESS, 'size_t', 'int']),
  send: declare('send', 'long', ['int', ADDRESS, 'size_t', 'int']),
  sendmsg: declare('sendmsg', 'long', ['int', ADDRESS, 'int']),
  shutdown: declare('shutdown', 'int', ['int', 'int']),
  prctl: declare('prctl', 'int', ['int', ADDRESS, 'ulong', 'ulong', 'ulong']),
  clockGettime: declare('clock_gettime', 'int', ['int', ADDRESS]),
  schedGetcpu: declare('sched_getcpu', 'int', []),
  schedYield: declare('sched_yield', 'int', []),
  schedGetaffinity: declare('sched_getaffinity', 'int', ['int', 'size_t', ADDRESS]),
  schedSetaffinity: declare('sched_setaffinity', 'int', ['int', 'size_t', ADDRESS]),
  schedSetscheduler: declare('sched_setscheduler', 'int', ['int', 'int', ADDRESS]),
  exitNow: declare('_exit', 'void', ['int']),
};

const errnoLocation = declare<() => bigint>('__errno_location', 'void *', []);

/** The thread's own errno. Each worker loads this module anew, so each has its own view. */
const errnoView = new Int32Array(koffi.view(errnoLocation(), 4));

/** Why the last call of this thread failed: a number of src/sys/errno.ts. */
export function errno(): number {
  return errnoView[0] ?? 0;
}

/**
 * `lengthBytes` of this process's memory at `address`, as an ArrayBuffer that aliases it. Several
 * views, also in several threads, may alias one address. A view is not told when the memory is
 * unmapped: touching it then is a crash, so each mapping has one owner who unmaps it last.
 */
export function viewMemory(address: number, lengthBytes: number): ArrayBuffer {
  if (lengthBytes > MAX_VIEW_BYTES) {
    throw new RangeError(`a view of ${lengthBytes} bytes: map large memory in windows of 4 GiB`);
  }
  return koffi.view(BigInt(address), lengthBytes);
}

/** koffi.view of 4 GiB or more aborts the process. */
const MAX_VIEW_BYTES = 0xffff_f000;
