/** Reads what a back end tells about itself, with the decisions that need more than one key. */

import type { XenStoreClient } from 'xenstore-client';
import {
  BackendKey,
  DISK_KEYS,
  type DiskProperties,
  KeyError,
  type KeyValues,
  parseDiskProperties,
  parseSectors,
  parseTransportLimits,
  RING_SECTOR_BYTES,
  TRANSPORT_KEYS,
  type TransportLimits,
} from '../blkif/index.ts';
import { FrontendError } from './errors.ts';
import { readIfReadable, readKeys } from './observation.ts';
import { backendTypeOf } from './vbd.ts';

/** Something that keys can be read with: a client, or a transaction. */
export type KeyReader = Pick<XenStoreClient, 'read'>;

/** What the back end at InitWait offers. @throws FrontendError BAD_BACKEND */
export async function readTransportLimits(
  store: KeyReader,
  backendPath: string,
): Promise<TransportLimits> {
  const keys = await readKeys(store, backendPath, TRANSPORT_KEYS);
  return parse(backendPath, () => parseTransportLimits(keys));
}

/** The disk of a Connected back end, and `sectors` as it stands there. */
export interface DiskReading {
  readonly disk: DiskProperties;
  readonly sectors: string | undefined;
}

/**
 * Reads the disk of a Connected back end.
 *
 * @param isSectorUnitTrusted - whether the operator vouches for 512-byte units where back ends
 *   differ.
 * @throws FrontendError BAD_BACKEND
 */
export async function readDisk(
  store: KeyReader,
  backendPath: string,
  isSectorUnitTrusted: boolean,
): Promise<DiskReading> {
  const keys = await readKeys(store, backendPath, DISK_KEYS);
  const disk = parse(backendPath, () => parseDiskProperties(keys));
  if (disk.sectorSize !== RING_SECTOR_BYTES && !isSectorUnitTrusted) {
    refuseAmbiguousUnit(backendPath, disk.sectorSize);
  }
  return { disk, sectors: keys.get(BackendKey.SECTORS) };
}

/**
 * The kernel's back end counts in 512-byte units whatever its sector size, as the interface says.
 * QEMU and others have counted in sectors: a wrong guess would read and write the wrong places.
 */
function refuseAmbiguousUnit(backendPath: string, sectorSize: number): void {
  const type = backendTypeOf(backendPath);
  if (type !== 'vbd') {
    throw new FrontendError(
      'BAD_BACKEND',
      `The back end ${backendPath} has sectors of ${sectorSize} bytes, and back ends of the kind ` +
        `${type ?? 'unknown'} differ in the unit of sector numbers; if this one counts in units ` +
        'of 512 bytes, say so with --sector-unit 512.',
    );
  }
}

/** The new size after a change of `sectors`. @throws FrontendError BAD_BACKEND */
export function parseResize(
  backendPath: string,
  sectors: string | undefined,
  disk: DiskProperties,
): number {
  const keys: KeyValues =
    sectors === undefined ? new Map() : new Map([[BackendKey.SECTORS as string, sectors]]);
  return parse(backendPath, () =>
    parseSectors(keys, disk.sectorSize, disk.isCdrom || disk.isRemovable),
  );
}

/**
 * The error that the back end left for us, or undefined. It writes below its own home, which a
 * guest can seldom read.
 */
export async function readBackendError(
  store: XenStoreClient,
  backendPath: string,
): Promise<string | undefined> {
  const [, home, rest] = /^(\/local\/domain\/[0-9]+)\/(.+)$/.exec(backendPath) ?? [];
  if (home === undefined || rest === undefined) {
    return undefined;
  }
  const text = await readIfReadable(store, `${home}/error/${rest}/error`);
  return text?.slice(0, 200).replaceAll(/[^\x20-\x7e]/g, '?');
}

function parse<T>(backendPath: string, parser: () => T): T {
  try {
    return parser();
  } catch (error) {
    if (error instanceof KeyError) {
      throw new FrontendError(
        'BAD_BACKEND',
        `The back end ${backendPath} cannot be used. ${error.message}`,
        { cause: error },
      );
    }
    throw error;
  }
}
