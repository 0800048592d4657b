/** The vbds of this guest, as the directory `device/vbd` in XenStore tells them. */

import { type XenStoreClient, XenStoreError } from 'xenstore-client';
import {
  BackendKey,
  formatDeviceNumber,
  parseXenbusState,
  RING_SECTOR_BYTES,
  type XenbusState,
} from '../blkif/index.ts';
import { parseBackendLocation, readKeys } from './observation.ts';

/** The directory of this guest's vbds, relative to its home. */
export const VBD_DIRECTORY = 'device/vbd';

/**
 * Tells who drives a vbd: the name of the kernel's driver, or another process; undefined for
 * nobody. The front end itself cannot see that in XenStore.
 */
export type HolderOf = (vbdId: number) => Promise<string | undefined> | string | undefined;

/** One vbd, as it stands in XenStore. */
export interface VbdDescription {
  /** The virtual device number: the directory's name. */
  readonly id: number;
  /** E.g. `xvdb`; the number itself when it fits no family. */
  readonly name: string;
  /** Our directory, relative to the guest's home. */
  readonly path: string;
  /** Undefined when the keys are missing or cannot be true. */
  readonly backendPath: string | undefined;
  readonly backendId: number | undefined;
  /** The kind of back end, from its path: `vbd` for the kernel's, `qdisk` for QEMU. */
  readonly backendType: string | undefined;
  readonly state: XenbusState;
  readonly backendState: XenbusState;
  /** `disk` or `cdrom`, as the toolstack says. */
  readonly deviceType: string;
  /** `r` or `w`, or undefined when it cannot be read. */
  readonly mode: string | undefined;
  /** Undefined until the back end was connected once. */
  readonly sizeBytes: number | undefined;
  /** The back end's file or device, where it may be read. */
  readonly params: string | undefined;
  /** Who drives it now. */
  readonly holder: string | undefined;
}

/** All vbds of this guest, by number. */
export async function listVbds(
  store: XenStoreClient,
  holderOf: HolderOf = () => undefined,
): Promise<VbdDescription[]> {
  const ids = await listVbdIds(store);
  return await Promise.all(ids.map((id) => describeVbd(store, id, holderOf)));
}

/** The numbers of this guest's vbds, in order. */
export async function listVbdIds(store: XenStoreClient): Promise<number[]> {
  let names: string[];
  try {
    names = await store.directory(VBD_DIRECTORY);
  } catch (error) {
    if (error instanceof XenStoreError && error.code === 'ENOENT') {
      return [];
    }
    throw error;
  }
  return names
    .filter((name) => /^(?:0|[1-9][0-9]{0,9})$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

/** One vbd. It need not exist: then nearly everything is undefined and the state Unknown. */
export async function describeVbd(
  store: XenStoreClient,
  id: number,
  holderOf: HolderOf = () => undefined,
): Promise<VbdDescription> {
  const path = `${VBD_DIRECTORY}/${id}`;
  const keys = await readKeys(store, path, ['state', 'backend', 'backend-id', 'device-type']);
  const backend = parseBackendLocation(keys.get('backend'), keys.get('backend-id'));
  const backendKeys =
    backend === undefined
      ? new Map<string, string>()
      : await readKeys(store, backend.path, [
          'state',
          BackendKey.MODE,
          BackendKey.PARAMS,
          BackendKey.SECTORS,
          BackendKey.DEVICE_TYPE,
        ]);
  return {
    id,
    name: formatDeviceNumber(id),
    path,
    backendPath: backend?.path,
    backendId: backend?.domid,
    backendType: backend === undefined ? undefined : backendTypeOf(backend.path),
    state: parseXenbusState(keys.get('state')),
    backendState: parseXenbusState(backendKeys.get('state')),
    deviceType: keys.get('device-type') ?? backendKeys.get(BackendKey.DEVICE_TYPE) ?? 'disk',
    mode: backendKeys.get(BackendKey.MODE),
    sizeBytes: parseSizeBytes(backendKeys.get(BackendKey.SECTORS)),
    params: backendKeys.get(BackendKey.PARAMS),
    holder: await holderOf(id),
  };
}

/** The kind of back end: the name after `backend` in its path, e.g. `vbd`, `qdisk`, `vbd3`. */
export function backendTypeOf(backendPath: string): string | undefined {
  return /\/backend\/([^/]+)\//.exec(backendPath)?.[1];
}

/** For display only: what cannot be a size is left out. */
function parseSizeBytes(sectors: string | undefined): number | undefined {
  if (sectors === undefined || !/^[0-9]{1,16}$/.test(sectors)) {
    return undefined;
  }
  const sizeBytes = Number(sectors) * RING_SECTOR_BYTES;
  return Number.isSafeInteger(sizeBytes) ? sizeBytes : undefined;
}

/**
 * Calls `onChange` with all vbds: once soon, and after each change below `device/vbd`, for
 * hot-plug. Changes that come while the list is read are told together. Returns how to stop.
 */
export async function watchVbds(
  store: XenStoreClient,
  onChange: (vbds: VbdDescription[]) => void,
  holderOf: HolderOf = () => undefined,
): Promise<() => Promise<void>> {
  let isStopped = false;
  let isReading = false;
  let isDirty = false;
  const read = async (): Promise<void> => {
    isDirty = true;
    if (isReading) {
      return;
    }
    isReading = true;
    try {
      while (isDirty && !isStopped) {
        isDirty = false;
        const vbds = await listVbds(store, holderOf);
        if (!isStopped && !isDirty) {
          onChange(vbds);
        }
      }
    } finally {
      isReading = false;
    }
  };
  const watch = await store.watch(VBD_DIRECTORY, () => {
    // The connection's end is told by the client itself; there is nothing to list any more.
    read().catch(() => undefined);
  });
  return async () => {
    isStopped = true;
    await watch.close();
  };
}
