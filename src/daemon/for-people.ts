/** From the errors of the layers below to those of the daemon. */

import { XenStoreError } from 'xenstore-client';
import { DeviceNameError } from '../blkif/index.ts';
import { FrontendError } from '../frontend/index.ts';
import { HostError } from '../host/index.ts';
import { SysError } from '../sys/index.ts';
import { DaemonError } from './errors.ts';

/** Errors whose sentence says all that people need become ours; others are returned. */
export function forPeople(error: unknown): unknown {
  const isSpoken =
    error instanceof HostError ||
    error instanceof FrontendError ||
    error instanceof XenStoreError ||
    error instanceof DeviceNameError ||
    error instanceof SysError;
  return isSpoken ? new DaemonError(error.message, { cause: error }) : error;
}
