/**
 * Who else may drive a vbd: the kernel's driver. It is asked before each connection, and with
 * --take-over it is detached. Whether it can have the vbd back at the end is the kernel's to say:
 * xen-blkfront does not connect again to a device that it has closed once.
 */

import type { XenStoreClient } from 'xenstore-client';
import { type HolderOf, prepareHandBack, type VbdDescription } from '../frontend/index.ts';
import { HostError } from '../host/index.ts';
import {
  attachKernelDriver,
  detachKernelDriver,
  kernelDiskHolder,
  kernelDriverOf,
  kernelWouldConnect,
} from '../xen/index.ts';
import { DaemonError } from './errors.ts';
import type { Logger } from './log.ts';

const HAND_BACK_MS = 10_000;

/** What of the kernel's driver is needed here; tests give their own. */
export interface KernelDriver {
  driverOf(vbdId: number): string | undefined;
  diskHolder(vbdId: number): string | undefined;
  detach(vbdId: number): void;
  wouldConnect(vbdId: number): boolean;
  attach(vbdId: number): void;
}

/** The kernel that we run on. */
export const thisKernel: KernelDriver = {
  driverOf: kernelDriverOf,
  diskHolder: kernelDiskHolder,
  detach: detachKernelDriver,
  wouldConnect: kernelWouldConnect,
  attach: attachKernelDriver,
};

export class TakeOver {
  readonly #kernel: KernelDriver;
  readonly #log: Logger;
  readonly #taken = new Set<number>();

  constructor(kernel: KernelDriver, log: Logger) {
    this.#kernel = kernel;
    this.#log = log;
  }

  /** Who drives a vbd; one that was taken over once is taken again when it comes back. */
  readonly holderOf: HolderOf = (vbdId) => {
    const driver = this.#kernel.driverOf(vbdId);
    if (driver === undefined) return undefined;
    if (this.#taken.has(vbdId)) {
      try {
        this.#kernel.detach(vbdId);
        return undefined;
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
        this.#log.warn('not-taken', { vbd: vbdId, driver }, error.message);
      }
    }
    return `the kernel's driver ${driver}`;
  };

  /**
   * Detaches the kernel's driver from each of `vbds`, or from none.
   *
   * @throws DaemonError when one of the disks is in use; HostError when it cannot be detached.
   */
  take(vbds: readonly VbdDescription[]): void {
    const driven = vbds.filter(({ id }) => this.#kernel.driverOf(id) !== undefined);
    for (const { id, name } of driven) {
      const holder = this.#kernel.diskHolder(id);
      if (holder !== undefined) {
        throw new DaemonError(
          `${name} cannot be taken over, since it is in use: ${holder}; unmount or release it first`,
        );
      }
    }
    for (const { id, name } of driven) {
      const driver = this.#kernel.driverOf(id);
      this.#kernel.detach(id);
      this.#taken.add(id);
      const message = `${name} was taken from the kernel's driver ${driver}`;
      this.#log.info('taken-over', { vbd: name, driver }, message);
    }
  }

  /** Gives a vbd that was taken, and is closed, back to the kernel if it can be. */
  async handBack(store: XenStoreClient, vbd: VbdDescription): Promise<void> {
    const { id, name } = vbd;
    if (!this.#taken.delete(id)) return;
    if (!this.#kernel.wouldConnect(id)) {
      const message =
        `${name} is closed, and the kernel's driver does not take it back by itself: detach and ` +
        'attach it from the toolstack (xl block-detach, xl block-attach), or restart the guest';
      this.#log.warn('not-handed-back', { vbd: name }, message);
      return;
    }
    try {
      await prepareHandBack(store, vbd, HAND_BACK_MS);
      this.#kernel.attach(id);
      this.#log.info(
        'handed-back',
        { vbd: name },
        `${name} was handed back to the kernel's driver`,
      );
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const message = `${name} could not be handed back to the kernel's driver: ${reason}`;
      this.#log.warn('not-handed-back', { vbd: name }, message);
    }
  }
}
