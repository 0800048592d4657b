/** A host for tests of the front end: it counts what is granted and bound, and checks who may. */

import type { Transport } from 'xenstore-client';
import {
  type EventChannelHandle,
  type GrantBudget,
  type GrantedPages,
  HostError,
  type VbdClaim,
  type XenHost,
} from '../../../src/host/index.ts';
import type { ScriptedStore } from './scripted-store.ts';

export class FakeHost implements XenHost {
  readonly name = 'fake host';
  limitPages = 1024;
  /** Called before pages are revoked or a channel is unbound. */
  onRelease: (() => void) | undefined;
  readonly grants: Map<number, { domid: number; memory: ArrayBuffer }> = new Map();
  readonly channels: Map<number, number> = new Map();
  readonly #store: ScriptedStore;
  /** Another process that has the vbd. */
  claimant: string | undefined;
  claimCount = 0;
  readonly disowned: number[] = [];
  #nextAddress = 0x10000;
  #nextGref = 8;
  #nextPort = 15;

  constructor(store: ScriptedStore) {
    this.#store = store;
  }

  get grantedPages(): number {
    let pages = 0;
    for (const { memory } of this.grants.values()) {
      pages += memory.byteLength / 4096;
    }
    return pages;
  }

  openXenStore(): Promise<Transport> {
    return Promise.resolve(this.#store.connect());
  }

  grantPages(domid: number, pageCount: number): GrantedPages {
    if (this.grantedPages + pageCount > this.limitPages) {
      throw new HostError('LIMIT', `No more than ${this.limitPages} pages may be granted.`);
    }
    const address = this.#nextAddress;
    this.#nextAddress += pageCount * 4096;
    this.grants.set(address, { domid, memory: new ArrayBuffer(pageCount * 4096) });
    const grefs = Uint32Array.from({ length: pageCount }, () => this.#nextGref++);
    const revoke = (): void => {
      this.onRelease?.();
      if (!this.grants.delete(address)) {
        throw new Error('Pages were revoked twice.');
      }
    };
    return { address, pageCount, grefs, revoke, retire: revoke };
  }

  grantBudget(): GrantBudget {
    return { limitPages: this.limitPages, source: 'the test' };
  }

  bindEventChannel(domid: number): EventChannelHandle {
    const port = this.#nextPort++;
    this.channels.set(port, domid);
    return { port, fd: 100 + port, moduleUrl: 'file:///none', detail: {} };
  }

  unbindEventChannel(handle: EventChannelHandle): void {
    this.onRelease?.();
    if (!this.channels.delete(handle.port)) {
      throw new Error(`Port ${handle.port} was unbound twice.`);
    }
  }

  disownEventChannel(handle: EventChannelHandle): void {
    if (!this.channels.has(handle.port)) {
      throw new Error(`Port ${handle.port} was disowned after it was unbound.`);
    }
    this.disowned.push(handle.port);
  }

  claimVbd(): VbdClaim | undefined {
    if (this.claimant !== undefined) return undefined;
    this.claimCount++;
    return { release: () => this.claimCount-- };
  }

  vbdClaimant(): string | undefined {
    return this.claimant;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  readonly viewMemory = (address: number, lengthBytes: number): ArrayBuffer => {
    const grant = this.grants.get(address);
    if (grant === undefined || grant.memory.byteLength !== lengthBytes) {
      throw new Error('The front end looked at memory that was not granted.');
    }
    return grant.memory;
  };
}
