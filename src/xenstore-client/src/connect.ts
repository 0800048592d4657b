/** Finds XenStore as libxenstore does: first the socket of a xenstored here, then the kernel. */
import { statSync } from 'node:fs';
import { XenStoreClient, type XenStoreClientOptions } from './client.ts';
import { openDevice } from './device-transport.ts';
import { XenStoreConnectError } from './errors.ts';
import type { ReadableWaiter } from './readable-waiter.ts';
import { openUnixSocket } from './socket-transport.ts';
import type { Transport } from './transport.ts';

/** Where XenStore is, and what the connection runs on. */
export interface ConnectOptions extends XenStoreClientOptions {
  /** A Unix socket or a device file. Default: the usual places. */
  path?: string | undefined;
  /** For a device file: tells when to read. Default: a timer. */
  waiter?: ReadableWaiter | undefined;
}

/**
 * Connects to XenStore: xenstored's socket where there is one (dom0), else /dev/xen/xenbus (a
 * guest), or what `path` names.
 * @throws (rejects) XenStoreConnectError
 */
export async function connectXenStore(options: ConnectOptions = {}): Promise<XenStoreClient> {
  return new XenStoreClient(await openTransport(options), options);
}

async function openTransport(options: ConnectOptions): Promise<Transport> {
  const { path, waiter } = options;
  if (path !== undefined) {
    return isDeviceFile(path) ? openDevice({ path, waiter }) : await openUnixSocket(path);
  }
  try {
    return await openUnixSocket();
  } catch (error) {
    if (!isMissing(error)) throw error;
    return openDeviceInstead(error, waiter);
  }
}

/** Neither is there: one error that names all the places. */
function openDeviceInstead(
  socketError: XenStoreConnectError,
  waiter: ReadableWaiter | undefined,
): Transport {
  try {
    return openDevice({ waiter });
  } catch (error) {
    if (!isMissing(error)) throw error;
    const message = `There is no XenStore here. ${socketError.message} ${error.message}`;
    throw new XenStoreConnectError(message, error.systemCode, { cause: error.cause });
  }
}

function isMissing(error: unknown): error is XenStoreConnectError {
  if (!(error instanceof XenStoreConnectError)) return false;
  return error.systemCode === 'ENOENT' || error.systemCode === 'ECONNREFUSED';
}

/** xenfs shows its xenbus as a regular file, so anything but a socket counts as the device. */
function isDeviceFile(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && !stat.isSocket();
}
