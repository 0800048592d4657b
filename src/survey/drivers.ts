/**
 * Who drives a vbd. The kernel's drivers are seen in sysfs; another process only by what it leaves
 * in XenStore, a state from Initialised to Closing, and by its grip on /dev/xen/gntalloc.
 */

import { join } from 'node:path';
import { XenbusState } from '../blkif/index.ts';
import type { VbdDescription } from '../frontend/index.ts';
import { kernelDiskHolder, kernelDiskName, kernelDriverOf } from '../xen/index.ts';
import { type FileUser, type FileUsers, type Machine, usersOf } from './machine.ts';

/** Who drives a vbd now. */
export type VbdDriver =
  | {
      readonly kind: 'kernel';
      /** The driver's name; xen-blkfront calls itself `vbd`. */
      readonly driver: string;
      /** The kernel's disk, e.g. `xvda`. */
      readonly device: string | undefined;
      /** What uses the disk, in words. */
      readonly use: string | undefined;
    }
  /** Another process; `processes` are those that grant pages, as far as they can be seen. */
  | {
      readonly kind: 'process';
      readonly processes: readonly FileUser[];
      /** One of ours, which has claimed the vbd, in words. */
      readonly claimant?: string;
    }
  /** Nobody: a process that drove it has ended without closing it. It can be taken as it is. */
  | { readonly kind: 'left' }
  | { readonly kind: 'free' };

/** Tells who drives each vbd of a real Xen guest. Looks at the processes once. */
export class VbdDrivers {
  readonly #machine: Machine;
  readonly #claimantOf: (vbdId: number) => string | undefined;
  #granters: FileUsers | undefined;

  /** `claimantOf` tells which process of ours has claimed a vbd, in words. */
  constructor(
    machine: Machine,
    claimantOf: (vbdId: number) => string | undefined = () => undefined,
  ) {
    this.#machine = machine;
    this.#claimantOf = claimantOf;
  }

  of({ id, state }: Pick<VbdDescription, 'id' | 'state'>): VbdDriver {
    const driver = kernelDriverOf(id, this.#machine.sys);
    if (driver !== undefined) {
      const device = kernelDiskName(id, this.#machine);
      return { kind: 'kernel', driver, device, use: kernelDiskHolder(id, this.#machine) };
    }
    // In any state: between two connections, or while it waits for its backend, it has it as well.
    const claimant = this.#claimantOf(id);
    if (claimant !== undefined) return { kind: 'process', processes: [], claimant };
    const isHeld = state >= XenbusState.Initialised && state <= XenbusState.Closing;
    if (!isHeld) return { kind: 'free' };
    const file = join(this.#machine.devXen, 'gntalloc');
    this.#granters ??= usersOf(file, this.#machine.proc);
    const { users, isComplete } = this.#granters;
    return users.length === 0 && isComplete
      ? { kind: 'left' }
      : { kind: 'process', processes: users };
  }
}

/** A driver in words, for people. */
export function describeDriver(driver: VbdDriver): string {
  switch (driver.kind) {
    case 'free':
      return 'free';
    case 'left':
      return 'free (left open by a process that has ended)';
    case 'process': {
      if (driver.claimant !== undefined) return driver.claimant;
      const names = driver.processes.map(({ pid, command }) => `${command} (${pid})`);
      return names.length === 0 ? 'another process' : `process ${names.join(' or ')}`;
    }
    case 'kernel': {
      const device = driver.device === undefined ? '' : ` as ${driver.device}`;
      const use = driver.use === undefined ? '' : `: ${driver.use}`;
      return `kernel driver ${driver.driver}${device}${use}`;
    }
  }
}
