/**
 * The toolstack of the simulated host: what `xl` and libxl do in XenStore (tools/libs/light of Xen,
 * libxl_create.c, libxl_device.c, libxl_disk.c). It makes the guest's directories, plugs virtual
 * disks in and out, and removes what a back end has closed. It speaks to xenstored like anybody.
 */

import type { Permission, XenStoreClient, XenStoreTransaction } from 'xenstore-client';
import { hostAbi, XenbusState } from '../blkif/index.ts';

/** A virtual disk as the toolstack knows it. */
export interface VbdConfig {
  readonly vbdId: number;
  /** The name for people, e.g. `xvda`. */
  readonly name: string;
  readonly guestDomid: number;
  readonly backendDomid: number;
  readonly params: string;
  readonly isReadOnly: boolean;
  readonly deviceType: 'disk' | 'cdrom';
}

function frontendPathOf(vbd: VbdConfig): string {
  return `/local/domain/${vbd.guestDomid}/device/vbd/${vbd.vbdId}`;
}

export function backendPathOf(vbd: VbdConfig): string {
  return `/local/domain/${vbd.backendDomid}/backend/vbd/${vbd.guestDomid}/${vbd.vbdId}`;
}

export class Toolstack {
  readonly #store: XenStoreClient;

  constructor(store: XenStoreClient) {
    this.#store = store;
  }

  /** The directories of a domain that a guest or driver expects to find. */
  async createDomain(domid: number, name: string): Promise<void> {
    const home = `/local/domain/${domid}`;
    // The domain may look at its directory, and write only where it has to.
    const readable: Permission[] = [
      { domid: 0, access: 'none' },
      { domid, access: 'read' },
    ];
    const owned: Permission[] = [{ domid, access: 'none' }];
    await this.#store.transaction(async (transaction) => {
      await makeNode(transaction, home, readable);
      await transaction.write(`${home}/name`, name);
      await transaction.write(`${home}/domid`, String(domid));
      await makeNode(transaction, `${home}/device`, readable);
      await makeNode(transaction, `${home}/device/vbd`, readable);
      await makeNode(transaction, `${home}/control`, readable);
      await makeNode(transaction, `${home}/control/shutdown`, owned);
      await makeNode(transaction, `${home}/data`, owned);
      await makeNode(transaction, `${home}/error`, owned);
      await makeNode(transaction, `${home}/backend`, owned);
    });
  }

  /** Removes a domain's directory. */
  async destroyDomain(domid: number): Promise<void> {
    await this.#store.rm(`/local/domain/${domid}`);
  }

  /** Plugs a disk in: both directories at state 1, with the keys that libxl writes. */
  async plug(vbd: VbdConfig): Promise<void> {
    await this.#store.transaction(async (transaction) => {
      await this.#writeFrontend(transaction, vbd);
      await this.#writeBackend(transaction, vbd);
    });
    // The block script of the host says that the disk is there.
    await this.#store.write(`${backendPathOf(vbd)}/physical-device`, 'ca:0');
    await this.#store.write(`${backendPathOf(vbd)}/hotplug-status`, 'connected');
  }

  /**
   * Plugs a disk out as `xl block-detach` does: asks by `online` and `state`, waits for the back
   * end to close, and removes both directories. A front end that does not answer makes it wait.
   */
  async unplug(vbd: VbdConfig): Promise<void> {
    const path = backendPathOf(vbd);
    await this.#store.transaction(async (transaction) => {
      if ((await transaction.tryRead(`${path}/state`)) === undefined) return;
      await transaction.write(`${path}/online`, '0');
      if ((await transaction.read(`${path}/state`)) === String(XenbusState.Closed)) return;
      await transaction.write(`${path}/state`, String(XenbusState.Closing));
    });
    await this.#store.waitFor(
      `${path}/state`,
      (state) => state === undefined || state === String(XenbusState.Closed),
    );
    await this.removeBoth(vbd);
  }

  /** Removes both directories at once, whatever the ends are doing. */
  async removeBoth(vbd: VbdConfig): Promise<void> {
    await this.#store.transaction(async (transaction) => {
      await removeNode(transaction, frontendPathOf(vbd));
      await removeNode(transaction, backendPathOf(vbd));
    });
  }

  /** Removes the back end's directory alone, as when a driver domain has died. */
  async removeBackend(vbd: VbdConfig): Promise<void> {
    await this.#store.transaction((transaction) => removeNode(transaction, backendPathOf(vbd)));
  }

  /** Makes the back end's directory anew at state 1, and points the front end's keys to it. */
  async restoreBackend(vbd: VbdConfig): Promise<void> {
    await this.#store.transaction(async (transaction) => {
      await this.#writeBackend(transaction, vbd);
      await transaction.write(`${frontendPathOf(vbd)}/backend`, backendPathOf(vbd));
      await transaction.write(`${frontendPathOf(vbd)}/backend-id`, String(vbd.backendDomid));
    });
  }

  async #writeFrontend(transaction: XenStoreTransaction, vbd: VbdConfig): Promise<void> {
    const path = frontendPathOf(vbd);
    await removeNode(transaction, path);
    await makeNode(transaction, path, [
      { domid: vbd.guestDomid, access: 'none' },
      { domid: vbd.backendDomid, access: 'read' },
    ]);
    await writeAll(transaction, path, {
      backend: backendPathOf(vbd),
      'backend-id': String(vbd.backendDomid),
      trusted: '1',
      state: String(XenbusState.Initialising),
      'virtual-device': String(vbd.vbdId),
      'device-type': vbd.deviceType,
      protocol: hostAbi(process.arch),
    });
  }

  async #writeBackend(transaction: XenStoreTransaction, vbd: VbdConfig): Promise<void> {
    const path = backendPathOf(vbd);
    await removeNode(transaction, path);
    await makeNode(transaction, path, [
      { domid: vbd.backendDomid, access: 'none' },
      { domid: vbd.guestDomid, access: 'read' },
    ]);
    await writeAll(transaction, path, {
      frontend: frontendPathOf(vbd),
      'frontend-id': String(vbd.guestDomid),
      online: '1',
      removable: '0',
      bootable: '0',
      state: String(XenbusState.Initialising),
      dev: vbd.name,
      type: 'phy',
      mode: vbd.isReadOnly ? 'r' : 'w',
      'device-type': vbd.deviceType,
      'discard-enable': vbd.isReadOnly ? '0' : '1',
      params: vbd.params,
      'direct-io-safe': '0',
      specification: 'xen',
    });
  }
}

async function makeNode(
  transaction: XenStoreTransaction,
  path: string,
  permissions: readonly Permission[],
): Promise<void> {
  await transaction.mkdir(path);
  await transaction.setPermissions(path, permissions);
}

async function removeNode(transaction: XenStoreTransaction, path: string): Promise<void> {
  // Removing what is not there is an error when its parent is missing too.
  if ((await transaction.tryRead(path)) !== undefined) await transaction.rm(path);
}

async function writeAll(
  transaction: XenStoreTransaction,
  path: string,
  values: Readonly<Record<string, string>>,
): Promise<void> {
  for (const [key, value] of Object.entries(values)) {
    await transaction.write(`${path}/${key}`, value);
  }
}
