/**
 * `take-over`: what `serve --take-over` does first, by itself. It needs root, and the server that
 * comes after it then does not.
 */

import { XenStoreClient } from 'xenstore-client';
import { listVbds, selectVbd } from '../frontend/index.ts';
import { createLinuxHost } from '../xen/index.ts';
import { forPeople } from './for-people.ts';
import type { Logger } from './log.ts';
import { TakeOver, thisKernel } from './take-over.ts';

/**
 * Detaches the kernel's driver from each of `wanted`, or from none; one that it does not have is
 * left alone.
 *
 * @throws DaemonError when there is no such vbd, its disk is in use, or it cannot be detached
 */
export async function takeFromKernel(wanted: readonly string[], log: Logger): Promise<void> {
  const host = createLinuxHost();
  let store: XenStoreClient | undefined;
  try {
    store = new XenStoreClient(await host.openXenStore());
    const vbds = await listVbds(store);
    new TakeOver(thisKernel, log).take(wanted.map((text) => selectVbd(vbds, text)));
  } catch (error) {
    throw forPeople(error);
  } finally {
    await store?.close();
    await host.close();
  }
}
