// Every error of the package, and the one place where what a backend throws becomes an NBD errno.

import { NbdErrno } from './constants.ts';

/** The names of the errors a reply may carry. */
export type NbdErrorCode = Exclude<keyof typeof NbdErrno, 'OK'>;

/**
 * An operation on an export failed. Backends throw it to choose the errno and the text the client
 * gets; any other error is mapped by `nbdErrnoOf` and its message stays on this side.
 */
export class NbdError extends Error {
  /** Always `NbdError`. */
  override readonly name = 'NbdError';
  /** The name of the errno: 'EIO', 'ENOSPC', ... */
  readonly code: NbdErrorCode;
  /** Where in the export it failed, in bytes, when that is known. */
  readonly offset: number | undefined;

  constructor(
    code: NbdErrorCode,
    message: string,
    options: { offset?: number; cause?: unknown } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.offset = options.offset;
  }

  /** The number that goes to the client. */
  get errno(): NbdErrno {
    return NbdErrno[this.code];
  }
}

/** What can go wrong with a server as a whole. */
export type NbdServerErrorCode =
  /** Another server listens there. */
  | 'ERR_NBD_ADDRESS_IN_USE'
  /** Listening failed in another way; `cause` is the system's error. */
  | 'ERR_NBD_LISTEN'
  /** The path of a Unix socket is something else. */
  | 'ERR_NBD_NOT_A_SOCKET'
  /** `listen` after `close`. */
  | 'ERR_NBD_CLOSED'
  /** Two exports with one name. */
  | 'ERR_NBD_EXPORT_EXISTS'
  /** Certificates or keys that cannot work. */
  | 'ERR_NBD_TLS_CONFIG'
  /** A PSK file with a malformed line. */
  | 'ERR_NBD_PSK_FILE'
  /** A file backend without a size, or too short. */
  | 'ERR_NBD_FILE_SIZE';

/** The server could not do what its owner asked for. */
export class NbdServerError extends Error {
  /** Always `NbdServerError`. */
  override readonly name = 'NbdServerError';
  /** What went wrong, for programs. */
  readonly code: NbdServerErrorCode;

  constructor(code: NbdServerErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
  }
}

/** System errors that have an NBD errno of their own; all others become EIO. */
const errnoOfSystemCode: ReadonlyMap<string, NbdErrno> = new Map([
  ['EPERM', NbdErrno.EPERM],
  ['EACCES', NbdErrno.EPERM],
  ['EROFS', NbdErrno.EPERM],
  ['ENOSPC', NbdErrno.ENOSPC],
  ['EDQUOT', NbdErrno.ENOSPC],
  ['EFBIG', NbdErrno.ENOSPC],
  ['ENOMEM', NbdErrno.ENOMEM],
  ['EINVAL', NbdErrno.EINVAL],
  ['ESHUTDOWN', NbdErrno.ESHUTDOWN],
]);

/** The NBD errno for whatever a backend threw: only numbers the protocol allows, EIO by default. */
export function nbdErrnoOf(error: unknown): NbdErrno {
  if (error instanceof NbdError) return error.errno;
  if (!(error instanceof Error) || !('code' in error)) return NbdErrno.EIO;
  return errnoOfSystemCode.get(String(error.code)) ?? NbdErrno.EIO;
}
