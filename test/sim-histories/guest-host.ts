/**
 * What the guest's kernel gives a process: grants, event channels and XenStore, from the parts of
 * the simulated Xen host. Outlives restores of the guest and deaths of the process, and reports
 * what a kernel would not survive.
 *
 * Memory that a process has given back stays in place, poisoned, until the history is over, so that
 * whoever still writes to it is found out instead of ending the test's own process.
 */

import type { Transport } from 'xenstore-client';
import type {
  EventChannelHandle,
  GrantAccess,
  GrantBudget,
  GrantedPages,
  VbdClaim,
  XenHost,
} from '../../src/host/index.ts';
import type { EventChannelTable } from '../../src/sim/event-channel-table.ts';
import { FIRST_GREF, GRANT_MAP_COUNT } from '../../src/sim/grant-map.ts';
import type { GrantTable } from '../../src/sim/grants.ts';
import type { Xenstored } from '../../src/sim/xenstored.ts';
import { libc, PAGE_SIZE, unmapMemory, viewMemory } from '../../src/sys/index.ts';
import { GuestXenbus } from './guest-xenbus.ts';
import { constantBytes } from './payloads.ts';

const PROT_READ_WRITE = 3;
const PRIVATE_ANONYMOUS_NOREPLACE = 0x10_0022;
const POISON = 0xa5;

export interface GuestParts {
  readonly xenstored: Xenstored;
  readonly grants: GrantTable;
  readonly channels: EventChannelTable;
  readonly nowMs: () => number;
  /** Told of what must not happen. */
  readonly report: (what: string) => void;
  /** A page was given back that the back end has mapped. */
  readonly deferred: (pages: number) => void;
}

interface Poisoned {
  readonly address: number;
  readonly lengthBytes: number;
}

export class GuestHost implements XenHost {
  readonly name = 'simulated guest';
  domid: number;
  readonly #parts: GuestParts;
  readonly #held = new Set<GrantedPages>();
  readonly #channels = new Set<EventChannelHandle>();
  /** Channels of before a restore: the kernel has forgotten them, and closing one is its end. */
  readonly #dead = new Set<EventChannelHandle>();
  readonly #boundAtMs = new Map<EventChannelHandle, number>();
  /** What the kernel took back from dead processes: their front ends do not know it. */
  readonly #taken = new Set<GrantedPages | EventChannelHandle>();
  readonly #poisoned: Poisoned[] = [];
  xenbus: GuestXenbus | undefined;
  /** Memory that is given back is watched; not worth it once nobody is left to touch it. */
  isWatching = true;
  #isExiting = false;
  #table: Int32Array | undefined;

  constructor(parts: GuestParts, domid: number) {
    this.#parts = parts;
    this.domid = domid;
  }

  openXenStore(): Promise<Transport> {
    this.xenbus = new GuestXenbus(this.#parts.xenstored, this.domid);
    return Promise.resolve(this.xenbus);
  }

  grantPages(domid: number, pageCount: number, access: GrantAccess): GrantedPages {
    const granted = this.#parts.grants.grant(domid, pageCount, access);
    const { address, grefs } = granted;
    const pages: GrantedPages = {
      address,
      pageCount,
      grefs,
      revoke: () => {
        if (!this.#held.delete(pages)) {
          if (this.#taken.has(pages)) return;
          this.#parts.report('pages were given back twice');
          return;
        }
        this.#giveBack(granted);
      },
      retire: () => this.#parts.report('a lane has no pages of which others have views'),
    };
    this.#held.add(pages);
    return pages;
  }

  grantBudget(): GrantBudget {
    return this.#parts.grants.budget();
  }

  bindEventChannel(domid: number): EventChannelHandle {
    const handle = this.#parts.channels.bindUnbound(this.domid, domid);
    this.#channels.add(handle);
    this.#boundAtMs.set(handle, this.#parts.nowMs());
    return handle;
  }

  unbindEventChannel(handle: EventChannelHandle): void {
    if (this.#dead.has(handle)) {
      this.#parts.report(`port ${handle.port} of before the restore was closed: a kernel BUG`);
      return;
    }
    if (!this.#channels.delete(handle)) {
      if (this.#taken.has(handle)) return;
      this.#parts.report(`port ${handle.port} was closed twice`);
      return;
    }
    this.#parts.channels.unbind(handle);
  }

  disownEventChannel(handle: EventChannelHandle): void {
    if (!this.#dead.has(handle) && !this.#taken.has(handle)) {
      this.#parts.report(`port ${handle.port} was left open though it is alive`);
    }
  }

  /** There is one process at a time, and a claim ends with it. */
  claimVbd(): VbdClaim {
    return { release: () => undefined };
  }

  vbdClaimant(): undefined {
    return undefined;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  // --- what happens to the guest

  /** The guest goes on as another domain; its old ports are dead. */
  restore(domid: number): void {
    this.domid = domid;
    for (const handle of this.#channels) this.#dead.add(handle);
    this.#channels.clear();
  }

  /** The process dies: the kernel takes back all that it had. */
  exit(): void {
    this.#isExiting = true;
    for (const pages of this.#held) {
      pages.revoke();
      this.#taken.add(pages);
    }
    for (const handle of this.#channels) {
      this.unbindEventChannel(handle);
      this.#taken.add(handle);
    }
    this.#isExiting = false;
  }

  /** When the first of these was bound. */
  boundAtMs(handles: readonly EventChannelHandle[]): number {
    return Math.min(...handles.map((handle) => this.#boundAtMs.get(handle) ?? 0));
  }

  /** Ports that the process still holds, and those that it must hold for ever. */
  get channelCount(): { readonly held: number; readonly dead: number } {
    return { held: this.#channels.size, dead: this.#dead.size };
  }

  get heldPages(): number {
    let count = 0;
    for (const { pageCount } of this.#held) count += pageCount;
    return count;
  }

  /** Whether somebody wrote to memory after it was given back. Ends the watch over it. */
  endQuarantine(): boolean {
    let isTouched = false;
    for (const { address, lengthBytes } of this.#poisoned.splice(0)) {
      const bytes = Buffer.from(viewMemory(address, lengthBytes));
      if (!bytes.equals(constantBytes(POISON, lengthBytes))) isTouched = true;
      unmapMemory(address, lengthBytes);
    }
    return isTouched;
  }

  /** How many of these pages a back end has mapped. */
  #mappedCount({ grefs }: GrantedPages): number {
    const { placement } = this.#parts.grants;
    this.#table ??= new Int32Array(viewMemory(placement.tableAddress, placement.pageCount * 4));
    let count = 0;
    for (const gref of grefs) {
      if (((this.#table[gref - FIRST_GREF] ?? 0) & GRANT_MAP_COUNT) !== 0) count += 1;
    }
    return count;
  }

  #giveBack(granted: GrantedPages): void {
    const { deferred } = this.#parts;
    const { address, pageCount } = granted;
    const lengthBytes = pageCount * PAGE_SIZE;
    const mapped = this.#isExiting ? 0 : this.#mappedCount(granted);
    granted.revoke();
    if (mapped > 0) deferred(mapped);
    if (!this.isWatching) return;
    const again = libc.mmap(
      address,
      lengthBytes,
      PROT_READ_WRITE,
      PRIVATE_ANONYMOUS_NOREPLACE,
      -1,
      0,
    );
    if (again !== address) return;
    libc.memset(address, POISON, lengthBytes);
    this.#poisoned.push({ address, lengthBytes });
  }
}
