/**
 * Every error this package raises. `code` is a closed list: XenStore's own error names where
 * XenStore (or a local check that stands for it) refused, four more for the connection.
 */
import type { XsErrorName } from './constants.ts';

/**
 * Why an operation failed: one of XenStore's error names, or
 * `CONNECT` (no connection could be made), `CLOSED` (the connection ended, or had ended),
 * `PROTOCOL` (the other side broke the wire protocol), `TIMEOUT` (a bounded wait ran out).
 */
export type XenStoreErrorCode = XsErrorName | 'CONNECT' | 'CLOSED' | 'PROTOCOL' | 'TIMEOUT';

/** What an error is about, where that is known. */
export interface XenStoreErrorOptions extends ErrorOptions {
  /** The XenStore path of the failed operation. */
  path?: string | undefined;
}

/** A failed XenStore operation. The other error classes extend this one. */
export class XenStoreError extends Error {
  /** `XenStoreError`. */
  override readonly name: string = 'XenStoreError';
  /** Why it failed, for programs. */
  readonly code: XenStoreErrorCode;
  /** The XenStore path of the failed operation, if it had one. */
  readonly path: string | undefined;

  constructor(code: XenStoreErrorCode, message: string, options?: XenStoreErrorOptions) {
    super(message, options);
    this.code = code;
    this.path = options?.path;
  }
}

/** The other side sent bytes that the protocol does not allow; the connection cannot go on. */
export class XenStoreProtocolError extends XenStoreError {
  /** `XenStoreProtocolError`. */
  override readonly name: string = 'XenStoreProtocolError';

  constructor(message: string, options?: XenStoreErrorOptions) {
    super('PROTOCOL', message, options);
  }
}

/** The connection ended before the operation did. `cause` says why, unless we closed it. */
export class XenStoreClosedError extends XenStoreError {
  /** `XenStoreClosedError`. */
  override readonly name: string = 'XenStoreClosedError';

  constructor(message: string, options?: XenStoreErrorOptions) {
    super('CLOSED', message, options);
  }
}

/** No connection could be made. `cause` is the system's error, `systemCode` its name. */
export class XenStoreConnectError extends XenStoreError {
  /** `XenStoreConnectError`. */
  override readonly name: string = 'XenStoreConnectError';
  /** The system's error name, for example `ENOENT`, `EACCES` or `ECONNREFUSED`. */
  readonly systemCode: string | undefined;

  constructor(message: string, systemCode: string | undefined, options?: XenStoreErrorOptions) {
    super('CONNECT', message, options);
    this.systemCode = systemCode;
  }
}
