/** Why a vbd cannot be found, attached or kept; the closed list that callers may branch on. */
export type FrontendErrorCode =
  /** There is no such vbd, or none at all. */
  | 'NO_VBD'
  /** More than one vbd fits. */
  | 'AMBIGUOUS'
  /** The kernel or another process drives the vbd. */
  | 'HELD'
  /** The back end did not answer within a bounded wait. */
  | 'TIMEOUT'
  /** The back end answered with Closing or Closed. */
  | 'REFUSED'
  /** The back end tells values that cannot be true, or that cannot be served safely. */
  | 'BAD_BACKEND'
  /** The vbd was unplugged. */
  | 'UNPLUGGED'
  /** The caller's signal aborted. */
  | 'ABORTED'
  /** XenStore refused an operation, or the connection to it ended. */
  | 'STORE'
  /** The host refused a grant or an event channel. */
  | 'HOST';

/** A failure in the life of a vbd. `message` is one sentence for people. */
export class FrontendError extends Error {
  /** Always `FrontendError`. */
  override readonly name = 'FrontendError';
  /** Why it failed, for programs. */
  readonly code: FrontendErrorCode;

  constructor(code: FrontendErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
