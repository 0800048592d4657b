/**
 * Event channels of a guest that was restored. The kernel has forgotten their ports, and closing
 * their descriptors hits a BUG in it (drivers/xen/evtchn.c, evtchn_release), also when that is done
 * by the end of this process: the process never goes away, and the kernel is damaged. So somebody
 * must hold the descriptors as long as the guest runs.
 *
 * That is a process that inherits them and does nothing: a shell that sleeps and ignores signals.
 * It leaves the service's control group, since a service manager kills what is left in there, and
 * its name begins with `@`, which asks systemd to spare it at shutdown. A service manager with a
 * descriptor store is given duplicates as well.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setCloseOnExec } from '../sys/index.ts';
import type { Logger } from './log.ts';
import type { Supervisor } from './supervisor.ts';

/** The name under which the service manager stores them, and hands them to the next process. */
export const ORPHAN_FDNAME = 'xen-evtchn-orphan';

/** The root control group, for which no rule forbids processes. */
const ROOT_CGROUP = '/sys/fs/cgroup/cgroup.procs';

const HOLD = "trap '' HUP INT TERM QUIT; while :; do sleep 2147483647; done";

/** A busybox shell looks for its name behind the last slash. */
const HOLDER_NAME = '@xenblk-nbd-holder/sh';

export class OrphanedChannels {
  readonly #supervisor: Supervisor;
  readonly #log: Logger;
  readonly #fds = new Set<number>();
  /** Descriptors that only this process holds. */
  readonly #unheld = new Set<number>();

  constructor(supervisor: Supervisor, log: Logger) {
    this.#supervisor = supervisor;
    this.#log = log;
  }

  /** Whether this process may end without closing a channel for good. */
  get mayExit(): boolean {
    return this.#unheld.size === 0;
  }

  /** Whether there are any: then nothing may close all descriptors of the host. */
  get areThere(): boolean {
    return this.#fds.size > 0;
  }

  /** Takes descriptors that the service manager stored for an earlier process: it holds them. */
  inherit(fds: readonly number[]): void {
    for (const fd of fds) {
      setCloseOnExec(fd);
      this.#fds.add(fd);
    }
  }

  /** Finds a holder for descriptors that must never be closed. */
  async keep(fds: readonly number[]): Promise<void> {
    for (const fd of fds) {
      this.#fds.add(fd);
      this.#unheld.add(fd);
    }
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
      const pid = await startHolder(fds);
      const isOutside = leaveControlGroup(pid);
      for (const fd of fds) this.#unheld.delete(fd);
      const message =
        `this guest was restored: ${count} of before must never be closed, so process ${pid} ` +
        `holds them; leave it alone until the guest shuts down`;
      this.#log.warn('channels-orphaned', { fds: fds.length, holder: pid, isStored }, message);
      if (!isOutside && !isStored && this.#supervisor.isPresent) {
        const warning =
          `process ${pid} could not leave the control group of this service, so stopping the ` +
          'service kills it, which damages the kernel: restart the guest instead';
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

/** Starts a process that inherits `fds` and sleeps for ever. Resolves to its id. */
function startHolder(fds: readonly number[]): Promise<number> {
  return new Promise((resolve, reject) => {
    let holder: ChildProcess;
    try {
      holder = spawn('/bin/sh', ['-c', HOLD], {
        argv0: HOLDER_NAME,
        cwd: '/',
        // A session of its own: no terminal and no shell of ours can end it.
        detached: true,
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
        stdio: ['ignore', 'ignore', 'ignore', ...fds],
      });
    } catch (error) {
      reject(error as Error);
      return;
    }
    holder.once('error', reject);
    holder.once('spawn', () => {
      holder.unref();
      resolve(holder.pid ?? 0);
    });
  });
}

/** Only root may, and only where control groups are mounted. */
function leaveControlGroup(pid: number): boolean {
  try {
    writeFileSync(ROOT_CGROUP, String(pid));
    return true;
  } catch {
    return false;
  }
}
