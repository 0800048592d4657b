/**
 * What an operation on a block device may end with. These are values, not exceptions: a disk that
 * fails is no fault of the program that uses it.
 */

/** Why a read or a flush did not succeed. */
export type BlockError =
  | {
      /** The back end does not know this operation. */
      readonly code: 'Unimplemented';
    }
  | {
      /** The device was disconnected, unplugged, or did not come back in time. */
      readonly code: 'Disconnected';
    }
  | {
      /** The back end answered with an error, or did what it may not do. */
      readonly code: 'Failed';
      /** What it was, as a phrase for people. */
      readonly message: string;
    };

/** Why a write did not succeed. */
export type BlockWriteError =
  | BlockError
  | {
      /** The device is read-only; nothing was written. */
      readonly code: 'IsReadOnly';
    };

/** What a read or a flush resolves to. */
export type BlockResult =
  | {
      /** All of it was done. */
      readonly ok: true;
    }
  | {
      /** It was not done, or not all of it. */
      readonly ok: false;
      /** Why. */
      readonly error: BlockError;
    };

/** What a write resolves to. */
export type BlockWriteResult =
  | {
      /** All of it was done. */
      readonly ok: true;
    }
  | {
      /** It was not done, or not all of it. */
      readonly ok: false;
      /** Why. */
      readonly error: BlockWriteError;
    };

/** An error of a read or a flush, as a phrase for people. */
export function formatError(error: BlockError): string {
  switch (error.code) {
    case 'Unimplemented':
      return 'operation not implemented by the back end';
    case 'Disconnected':
      return 'device is disconnected';
    case 'Failed':
      return error.message;
    default:
      return error satisfies never;
  }
}

/** An error of a write, as a phrase for people. */
export function formatWriteError(error: BlockWriteError): string {
  return error.code === 'IsReadOnly'
    ? 'attempted to write to a read-only disk'
    : formatError(error);
}
