/** The errors of a front end's life, in sentences that say what was seen and what to do. */

import { XenStoreError } from 'xenstore-client';
import { HostError } from '../host/index.ts';
import { FrontendError } from './errors.ts';
import { describeObservation, type Observation } from './observation.ts';

/** A bounded wait is over. `told` is the back end's own error, if it left one. */
export function timeoutError(
  name: string,
  what: string,
  observation: Observation,
  told: string | undefined,
): FrontendError {
  return new FrontendError(
    'TIMEOUT',
    `${name}: the back end ${what} in time; ${describeObservation(observation)}${quoteTold(told)}. ` +
      'Look at the state and the log of the domain that serves the disk.',
  );
}

/** The back end closed instead of connecting. */
export function refusedError(
  name: string,
  observation: Observation,
  told: string | undefined,
): FrontendError {
  return new FrontendError(
    'REFUSED',
    `${name}: the back end closed instead of connecting; ` +
      `${describeObservation(observation)}${quoteTold(told)}. ` +
      'Look at the log of the domain that serves the disk.',
  );
}

/** Somebody else drives the vbd. */
export function heldError(name: string, holder: string): FrontendError {
  return new FrontendError(
    'HELD',
    `${name} is in use by ${holder}; stop that first, or detach the kernel's driver with --take-over.`,
  );
}

/** Another process has claimed the vbd. */
export function claimedError(name: string, claimant: string): FrontendError {
  return new FrontendError(
    'HELD',
    `${name} is driven by ${claimant}; stop that first, or choose another vbd.`,
  );
}

/** Whether the connection to XenStore cannot be used any more. */
export function isStoreLost(error: unknown): boolean {
  return error instanceof XenStoreError && (error.code === 'CLOSED' || error.code === 'PROTOCOL');
}

/** Anything that an action threw, as an error of the front end. Faults of the program stay. */
export function toFrontendError(name: string, error: unknown): FrontendError {
  if (error instanceof FrontendError) {
    return error;
  }
  if (error instanceof XenStoreError) {
    const message = `${name}: XenStore failed the front end. ${error.message}`;
    return new FrontendError('STORE', message, { cause: error });
  }
  if (error instanceof HostError) {
    return new FrontendError('HOST', `${name}: ${error.message}`, { cause: error });
  }
  throw error;
}

function quoteTold(told: string | undefined): string {
  return told === undefined ? '' : `, and it reports "${told}"`;
}
