// QEMU as the back end of dom0's disks: the process that xencommons starts on a Debian dom0.
import { existsSync, readFileSync } from 'node:fs';
import { eventually, run } from './commands.ts';
import type { Lab } from './scenario.ts';

const PROGRAM = '/usr/libexec/xen-qemu-system-i386';
const PID_FILE = '/run/qemu-dom0.pid';

/** Starts it until the end of the scenario. It looks for its disks in XenStore by itself. */
export async function startQemu(lab: Lab): Promise<void> {
  const machine = ['-xen-domid', '0', '-xen-attach', '-name', 'dom0', '-nographic', '-M', 'xenpv'];
  const none = ['-monitor', 'none', '-serial', 'none', '-parallel', 'none'];
  await run(PROGRAM, ...machine, ...none, '-daemonize', '-pidfile', PID_FILE);
  const pid = Number(readFileSync(PID_FILE, 'utf8'));
  lab.cleanUp(async () => {
    process.kill(pid, 'SIGTERM');
    await eventually('QEMU ends', 30_000, () => (existsSync(`/proc/${pid}`) ? undefined : true));
  });
}
