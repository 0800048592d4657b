/** Checks of what Xen and the kernel give: the hypervisor, device files, the grant limit. */

import { join } from 'node:path';
import type { PageNeed } from '../daemon/index.ts';
import { type GrantBudget, HostError } from '../host/index.ts';
import { closeFd } from '../sys/index.ts';
import { hypervisorType, openXenDevice, type XenDevice } from '../xen/index.ts';
import { type Check, failed, ok, warning } from './check.ts';
import type { Machine } from './machine.ts';

/** Most pages that people give to grants: 256 MiB. Beyond it the advice would be no good. */
const LIMIT_PAGES_MAX = 65_536;

/** We are inside a guest of Xen. */
export function checkHypervisor(machine: Machine): Check {
  const type = hypervisorType(machine);
  if (type === 'xen') return ok('hypervisor', 'this is a guest of Xen');
  const seen = type === undefined ? 'no hypervisor' : `the hypervisor ${type}`;
  return failed(
    'hypervisor',
    `this machine has ${seen}, and not Xen`,
    'run it inside a Xen guest; to try it here: xenblk-nbd serve --simulate 64M',
  );
}

const MENDS: Readonly<Record<XenDevice, string>> = {
  gntalloc: 'modprobe xen-gntalloc',
  evtchn: 'modprobe xen-evtchn',
  xenbus: 'use a kernel with CONFIG_XEN_XENBUS_FRONTEND; in dom0, start xenstored',
};

/** A device file is there and this user may open it: it is opened, which changes nothing. */
export function checkDevice(machine: Machine, device: XenDevice): Check {
  const id = `device-${device}`;
  try {
    closeFd(openXenDevice(machine, device));
    return ok(id, `${join(machine.devXen, device)} can be opened`);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    return failed(id, error.message, deviceMend(error, device));
  }
}

function deviceMend(error: HostError, device: XenDevice): string {
  switch (error.code) {
    case 'NO_DEVICE':
      return MENDS[device];
    case 'NO_PERMISSION':
      return 'xenblk-nbd install-units, then usermod -aG xenblk-nbd USER; or run it as root';
    case 'LIMIT':
      return 'ulimit -n 4096';
    case 'FAILED':
      return `ls -l /dev/xen/${device}; journalctl -k --grep xen`;
  }
}

/** The guest's limit of granted pages is enough for `deviceCount` vbds of this configuration. */
export function checkGrantLimit(budget: GrantBudget, need: PageNeed, deviceCount: number): Check {
  const id = 'gntalloc-limit';
  const { limitPages, source } = budget;
  const vbds = deviceCount === 1 ? '1 vbd' : `${deviceCount} vbds`;
  const least = need.leastPages * deviceCount;
  const good = need.goodPages * deviceCount;
  // One eighth is left for other programs, as `serve` does.
  const wanted = 2 ** Math.ceil(Math.log2((good * 8) / 7));
  const raised = Math.min(wanted, LIMIT_PAGES_MAX);
  const mend =
    `echo ${raised} > ${source}; and for every boot: ` +
    `echo 'options xen-gntalloc limit=${raised}' > /etc/modprobe.d/xenblk-nbd.conf`;
  const said = `${limitPages} pages may be granted in this guest`;
  if (limitPages < least) {
    return failed(id, `${said}, and ${vbds} of this configuration need at least ${least}`, mend);
  }
  // A pool that is a little smaller than the best is not worth a word.
  if (limitPages < good * 0.75) {
    return warning(id, `${said}; ${vbds} of this configuration would use ${good}`, mend);
  }
  return ok(id, `${said}, enough for ${vbds} of this configuration (${least} to ${good})`);
}
