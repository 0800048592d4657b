/**
 * Event channels of a guest that was restored: their descriptors must never be closed, not even by
 * the end of this process (see channel-holder.ts of src/xen). A process is started that holds them,
 * and a service manager with a descriptor store is given duplicates as well.
 */

import { setCloseOnExec } from '../sys/index.ts';
import { startChannelHolder } from '../xen/index.ts';
import type { Logger } from './log.ts';
import type { Supervisor } from './supervisor.ts';

/** The name under which the service manager stores them, and hands them to the next process. */
export const ORPHAN_FDNAME = 'xen-evtchn-orphan';

export class OrphanedChannels {
  readonly #supervisor: Supervisor;
  readonly #log: Logger;
  readonly #startHolder: typeof startChannelHolder;
  /** Descriptors that only this process holds. */
  readonly #unheld = new Set<number>();

  /** Tests give a `startHolder` of their own. */
  constructor(
    supervisor: Supervisor,
    log: Logger,
    startHolder: typeof startChannelHolder = startChannelHolder,
  ) {
    this.#supervisor = supervisor;
    this.#log = log;
    this.#startHolder = startHolder;
  }

  /** Whether this process may end without closing a channel for good. */
  get mayExit(): boolean {
    return this.#unheld.size === 0;
  }

  /** Takes descriptors that the service manager stored for an earlier process: it holds them. */
  inherit(fds: readonly number[]): void {
    for (const fd of fds) setCloseOnExec(fd);
  }

  /** Finds a holder for descriptors that must never be closed. */
  async keep(fds: readonly number[]): Promise<void> {
    for (const fd of fds) this.#unheld.add(fd);
    await this.hold();
  }

  /** Tries again to find a holder for those that have none. */
  async hold(): Promise<void> {
    const fds = [...this.#unheld];
    if (fds.length === 0) return;
    const count = fds.length === 1 ? 'an event channel' : `${fds.length} event channels`;
    const isStored =
      this.#supervisor.canStoreDescriptors && this.#supervisor.storeDescriptors(ORPHAN_FDNAME, fds);
    try {
      const { pid, isOutside } = await this.#startHolder(fds);
      for (const fd of fds) this.#unheld.delete(fd);
      const message =
        `this guest was restored: ${count} of before must never be closed, so process ${pid} ` +
        `holds them; leave it alone until the guest shuts down`;
      this.#log.warn('channels-orphaned', { fds: fds.length, holder: pid, isStored }, message);
      const { isPresent, isSparing } = this.#supervisor;
      if (!isOutside && !isStored && isPresent && !isSparing) {
        const warning =
          `process ${pid} is in the control group of this service: unless its unit says ` +
          'KillMode=process, stopping it kills that process and damages the kernel; restart the ' +
          'guest instead';
        this.#log.error('holder-in-service', { holder: pid }, warning);
      }
    } catch (error) {
      if (isStored) {
        for (const fd of fds) this.#unheld.delete(fd);
        const message = `this guest was restored: the service manager holds ${count} of before`;
        this.#log.warn('channels-orphaned', { fds: fds.length, isStored }, message);
        return;
      }
      const reason = error instanceof Error ? error.message : String(error);
      const message =
        `this guest was restored, and no process could be started to hold ${count} of before ` +
        `(${reason}): do not end this process before the guest shuts down`;
      this.#log.error('channels-unheld', { fds: fds.length }, message);
    }
  }
}
