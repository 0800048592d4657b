/**
 * Somebody to hold event channels of a guest that was restored. The kernel has forgotten their
 * ports, and closing their descriptors hits a BUG in it (drivers/xen/evtchn.c, evtchn_release),
 * also when that is done by the end of this process: the process never goes away, and the kernel
 * is damaged. So the descriptors must stay open as long as the guest runs.
 *
 * The holder is a process that inherits them and does nothing: a shell that sleeps and ignores
 * signals. It leaves the service's control group, since a service manager kills what is left in
 * there, and its name begins with `@`, which asks systemd to spare it at shutdown.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';

/** The root control group, for which no rule forbids processes. */
const ROOT_CGROUP = '/sys/fs/cgroup/cgroup.procs';

const HOLD = "trap '' HUP INT TERM QUIT; while :; do sleep 2147483647; done";

/** A busybox shell looks for its name behind the last slash. */
const HOLDER_NAME = '@xenblk-nbd-holder/sh';

/** A process that holds descriptors. */
export interface ChannelHolder {
  readonly pid: number;
  /** Whether it is outside of our control group, so that stopping a service spares it. */
  readonly isOutside: boolean;
}

/** Starts a process that inherits `fds` and sleeps for ever; rejects when none can be started. */
export async function startChannelHolder(fds: readonly number[]): Promise<ChannelHolder> {
  const pid = await startHolder(fds);
  return { pid, isOutside: leaveControlGroup(pid) };
}

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
