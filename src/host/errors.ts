/** Why a host operation failed; the closed list that callers may branch on. */
export type HostErrorCode =
  /** A device file or module is missing: this is not a Xen guest, or a module is not loaded. */
  | 'NO_DEVICE'
  /** The device exists but may not be opened by this user. */
  | 'NO_PERMISSION'
  /** The guest's limit of granted pages, or of descriptors, is reached. */
  | 'LIMIT'
  /** Anything else the kernel refused. */
  | 'FAILED';

/**
 * A failed host operation. `message` is one sentence for people that says what happened, to which
 * file, and what to do next.
 */
export class HostError extends Error {
  /** Always `HostError`. */
  override readonly name = 'HostError';
  /** Why it failed, for programs. */
  readonly code: HostErrorCode;

  constructor(code: HostErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
