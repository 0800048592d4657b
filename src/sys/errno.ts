import { constants } from 'node:os';

/** errno numbers of this platform, by name. */
export const Errno: Readonly<typeof constants.errno> = constants.errno;

const namesByNumber = new Map<number, string>();
for (const [name, number] of Object.entries(constants.errno)) {
  // Aliases (EWOULDBLOCK, EOPNOTSUPP) come later in the table; the first name is the usual one.
  if (!namesByNumber.has(number)) namesByNumber.set(number, name);
}
namesByNumber.set(constants.errno.EAGAIN, 'EAGAIN');

/** `ENOENT` for 2; `errno 999` for a number without a name. */
export function errnoName(number: number): string {
  return namesByNumber.get(number) ?? `errno ${number}`;
}

const explanations: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  ENOSPC: 'no space or limit reached',
  ENODEV: 'no such device',
  ENXIO: 'no such device or address',
  EADDRINUSE: 'address already in use',
  EADDRNOTAVAIL: 'this host has no such address',
  EMFILE: 'too many open files in this process',
  ENFILE: 'too many open files in the system',
  ENOMEM: 'out of memory',
  EBUSY: 'busy',
  EINVAL: 'invalid argument',
  EROFS: 'read-only file system',
  EISDIR: 'is a directory',
  ENOTDIR: 'a part of the path is not a directory',
  ENAMETOOLONG: 'name too long',
  EEXIST: 'exists already',
};

/** A failed system call. `code` is the errno's name, as in Node's own errors. */
export class SysError extends Error {
  override readonly name = 'SysError';
  readonly syscall: string;
  readonly errno: number;
  readonly code: string;
  readonly path: string | undefined;

  constructor(syscall: string, errno: number, path?: string) {
    const code = errnoName(errno);
    const subject = path === undefined ? syscall : `${syscall} ${path}`;
    const why = explanations[code];
    super(why === undefined ? `${subject}: ${code}` : `${subject}: ${why} (${code})`);
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
    this.path = path;
  }
}
