/**
 * What XenStore holds about a vbd at one moment: all that the front end decides on.
 *
 * Watches may be merged, may fire without a change, and are not ordered with the values. So a
 * watch only means "look again", and what is looked at is everything.
 *
 * Key by key is not a snapshot. The order of the reads makes that harmless: the domain id comes
 * last, so that whatever was read after a restore is recognised as such.
 */

import { type XenStoreClient, XenStoreError } from 'xenstore-client';
import { BackendKey, formatXenbusState, parseXenbusState, XenbusState } from '../blkif/index.ts';

/** A back end's directory, as our keys name it. */
export interface BackendLocation {
  /** Absolute path in XenStore. */
  readonly path: string;
  /** The domain that may map our grants. */
  readonly domid: number;
}

/** One look at XenStore. */
export interface Observation {
  /** Our own state; Unknown when our directory is gone. */
  readonly frontendState: XenbusState;
  /** Undefined when the keys are missing or cannot be true. */
  readonly backend: BackendLocation | undefined;
  /** State of {@link backend}; Unknown when its directory is gone. */
  readonly backendState: XenbusState;
  /** Whether the back end's device is to stay: the toolstack sets `online` to 0 to remove it. */
  readonly isOnline: boolean;
  /**
   * State of the back end that the connection in question was made with. The same as
   * {@link backendState} unless our keys name another one since.
   */
  readonly linkedState: XenbusState;
  /** The back end's `sectors` as it stands there. */
  readonly sectors: string | undefined;
  /** Our own domain id, or undefined where XenStore does not tell it. */
  readonly domid: number | undefined;
}

/** Longest path of a back end's directory; it leaves room for the names of its keys. */
const MAX_BACKEND_PATH = 1024;
/** Domain ids from here on name no domain (DOMID_FIRST_RESERVED). */
const FIRST_RESERVED_DOMID = 0x7ff0;

/** Reads the present state of the vbd in `vbdPath`. `linkedPath` is the connection's back end. */
export async function observe(
  store: XenStoreClient,
  vbdPath: string,
  linkedPath: string | undefined,
): Promise<Observation> {
  const [state, backendPath, backendId] = await Promise.all([
    readIfReadable(store, `${vbdPath}/state`),
    readIfReadable(store, `${vbdPath}/backend`),
    readIfReadable(store, `${vbdPath}/backend-id`),
  ]);
  const backend = parseBackendLocation(backendPath, backendId);
  const [backendState, online, sectors] =
    backend === undefined
      ? [undefined, undefined, undefined]
      : await Promise.all([
          readIfReadable(store, `${backend.path}/state`),
          readIfReadable(store, `${backend.path}/${BackendKey.ONLINE}`),
          readIfReadable(store, `${backend.path}/${BackendKey.SECTORS}`),
        ]);
  const linkedState =
    linkedPath === undefined || linkedPath === backend?.path
      ? backendState
      : await readIfReadable(store, `${linkedPath}/state`);
  const domid = parseDomid(await readIfReadable(store, 'domid'));
  return {
    frontendState: parseXenbusState(state),
    backend,
    backendState: parseXenbusState(backendState),
    isOnline: online !== '0',
    linkedState: parseXenbusState(linkedState),
    sectors,
    domid,
  };
}

/**
 * The value of a key, or undefined when it is not there or may not be read. For a back end's
 * directory both mean that it is gone: XenStore says EACCES for a missing node below a directory
 * that the guest may not list, and that is where the directories of back ends are.
 */
export async function readIfReadable(
  store: Pick<XenStoreClient, 'read'>,
  path: string,
): Promise<string | undefined> {
  try {
    return await store.read(path);
  } catch (error) {
    if (error instanceof XenStoreError && (error.code === 'ENOENT' || error.code === 'EACCES')) {
      return undefined;
    }
    throw error;
  }
}

/** Reads several keys of one directory; those that are missing or unreadable are not in the map. */
export async function readKeys(
  store: Pick<XenStoreClient, 'read'>,
  directory: string,
  names: readonly string[],
): Promise<Map<string, string>> {
  const values = await Promise.all(
    names.map(async (name) => [name, await readIfReadable(store, `${directory}/${name}`)] as const),
  );
  const keys = new Map<string, string>();
  for (const [name, value] of values) {
    if (value !== undefined) {
      keys.set(name, value);
    }
  }
  return keys;
}

/** The keys `backend` and `backend-id`, or undefined when they do not name a back end. */
export function parseBackendLocation(
  path: string | undefined,
  backendId: string | undefined,
): BackendLocation | undefined {
  const domid = parseDomid(backendId);
  if (path === undefined || domid === undefined || path.length > MAX_BACKEND_PATH) {
    return undefined;
  }
  return /^(?:\/[A-Za-z0-9@_-]+)+$/.test(path) ? { path, domid } : undefined;
}

/** A domain id in decimal, or undefined. */
export function parseDomid(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9]{1,5}$/.test(text)) {
    return undefined;
  }
  const domid = Number(text);
  return domid < FIRST_RESERVED_DOMID ? domid : undefined;
}

/** What the error messages show of both ends. */
export function describeObservation(observation: Observation): string {
  const { frontendState, backend, backendState } = observation;
  if (frontendState === XenbusState.Unknown) {
    return 'the vbd is not in XenStore';
  }
  const ours = `our state is ${formatXenbusState(frontendState)}`;
  if (backend === undefined) {
    return `${ours}, and the keys backend and backend-id name no back end`;
  }
  return backendState === XenbusState.Unknown
    ? `${ours}, and the back end's directory ${backend.path} is missing or unreadable`
    : `${ours}, the state of the back end ${backend.path} is ${formatXenbusState(backendState)}`;
}
