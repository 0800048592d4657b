/** What a back end offers and what would come of it, without touching the vbd. */

import type { XenStoreClient } from 'xenstore-client';
import type { DiskProperties, TransportLimits } from '../blkif/index.ts';
import { readBackendError, readDisk, readTransportLimits } from './backend-keys.ts';
import { FrontendError } from './errors.ts';
import { chooseTransport, type TransportChoice, type TransportWish } from './transport-choice.ts';
import type { VbdDescription } from './vbd.ts';

/** What {@link inspectVbd} found. */
export interface VbdInspection {
  /** Undefined when it cannot be read or used; then {@link faults} says why. */
  readonly limits: TransportLimits | undefined;
  /** What would be negotiated for the wish. */
  readonly choice: TransportChoice | undefined;
  /** The back end tells it when it is connected, and may keep it afterwards. */
  readonly disk: DiskProperties | undefined;
  /** The error that the back end left, where it may be read. */
  readonly backendError: string | undefined;
  /** A sentence for each thing that cannot be read or used. */
  readonly faults: readonly string[];
}

/** Reads all that there is to know about a vbd. Changes nothing. */
export async function inspectVbd(
  store: XenStoreClient,
  vbd: VbdDescription,
  wish: TransportWish,
): Promise<VbdInspection> {
  const { backendPath } = vbd;
  if (backendPath === undefined) {
    return {
      limits: undefined,
      choice: undefined,
      disk: undefined,
      backendError: undefined,
      faults: [`The keys of ${vbd.name} name no back end; detach and attach the disk.`],
    };
  }
  const faults: string[] = [];
  const attempt = async <T>(reading: Promise<T>): Promise<T | undefined> => {
    try {
      return await reading;
    } catch (error) {
      if (error instanceof FrontendError) {
        faults.push(error.message);
        return undefined;
      }
      throw error;
    }
  };
  const limits = await attempt(readTransportLimits(store, backendPath));
  // Before the first connection there are no properties yet, which is no fault.
  const isTold = vbd.sizeBytes !== undefined;
  const reading = isTold ? await attempt(readDisk(store, backendPath, false)) : undefined;
  return {
    limits,
    choice: limits && chooseTransport(wish, limits),
    disk: reading?.disk,
    backendError: await readBackendError(store, backendPath),
    faults,
  };
}
