/**
 * The real {@link XenHost}: a Linux guest of Xen, through the kernel's device files. Nothing is
 * opened before it is needed, so that each failure names the file it is about.
 */

import { DeviceTransport, type Transport } from 'xenstore-client';
import type {
  EventChannelHandle,
  GrantAccess,
  GrantBudget,
  GrantedPages,
  VbdClaim,
  XenHost,
} from '../host/index.ts';
import { closeFd } from '../sys/index.ts';
import { linuxPaths, openXenDevice, type XenPaths } from './device-file.ts';
import { EpollWaiter } from './epoll-waiter.ts';
import { bindUnboundPort } from './evtchn.ts';
import { GrantAllocator, readGrantBudget } from './gntalloc.ts';
import { claimVbd, vbdClaimant } from './vbd-claim.ts';

/** The host of this Linux guest. `paths` are for tests. */
export function createLinuxHost(paths: XenPaths = linuxPaths): XenHost {
  return new LinuxHost(paths);
}

class LinuxHost implements XenHost {
  readonly name: string;
  readonly #paths: XenPaths;
  readonly #grants: GrantAllocator;
  readonly #channels = new Set<EventChannelHandle>();
  readonly #transports = new Set<Transport>();

  constructor(paths: XenPaths) {
    this.name = paths.devXen;
    this.#paths = paths;
    this.#grants = new GrantAllocator(paths);
  }

  async openXenStore(): Promise<Transport> {
    const fd = openXenDevice(this.#paths, 'xenbus');
    const transport = new DeviceTransport({ fd, waiter: new EpollWaiter(), closeFd });
    this.#transports.add(transport);
    return transport;
  }

  grantPages(domid: number, pageCount: number, access: GrantAccess): GrantedPages {
    return this.#grants.grant(domid, pageCount, access);
  }

  grantBudget(): GrantBudget {
    return readGrantBudget(this.#paths);
  }

  bindEventChannel(domid: number): EventChannelHandle {
    const handle = bindUnboundPort(this.#paths, domid);
    this.#channels.add(handle);
    return handle;
  }

  unbindEventChannel(handle: EventChannelHandle): void {
    if (!this.#channels.delete(handle)) throw new Error('this event channel was unbound before');
    // Closing the descriptor unbinds its only port.
    closeFd(handle.fd);
  }

  disownEventChannel(handle: EventChannelHandle): void {
    this.#channels.delete(handle);
  }

  claimVbd(vbdId: number): VbdClaim | undefined {
    return claimVbd(this.#paths, vbdId);
  }

  vbdClaimant(vbdId: number): string | undefined {
    return vbdClaimant(this.#paths, vbdId);
  }

  async close(): Promise<void> {
    for (const transport of this.#transports) transport.close();
    this.#transports.clear();
    for (const handle of this.#channels) this.unbindEventChannel(handle);
    this.#grants.close();
  }
}
