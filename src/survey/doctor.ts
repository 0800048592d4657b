/** `doctor`: everything that must be in order for `serve` to work, and how to mend the rest. */

import { DaemonError, deviceShare, pageNeed, transportWish } from '../daemon/index.ts';
import type { XenDevice } from '../xen/index.ts';
import { type Check, failed, ok, skipped } from './check.ts';
import { checkArchitecture, checkKoffi, checkNode, checkOpenFiles } from './check-program.ts';
import { checkService, type RunProgram, runProgram } from './check-service.ts';
import { checkVbds, type WantedVbds } from './check-vbds.ts';
import { checkDevice, checkGrantLimit, checkHypervisor } from './check-xen.ts';
import { type GuestChoice, withGuest } from './guest.ts';
import { type Machine, thisMachine } from './machine.ts';

/** The configuration that is asked about. */
export interface DoctorChoice extends GuestChoice, WantedVbds {
  readonly connections: number;
}

/** What else doctor looks at; tests bring their own. */
export interface DoctorWorld {
  readonly machine: Machine;
  readonly nodeVersion: string;
  readonly arch: string;
  readonly run: RunProgram;
}

/** The machine and the program that we are. */
export const thisWorld: DoctorWorld = {
  machine: thisMachine,
  nodeVersion: process.version,
  arch: process.arch,
  run: runProgram,
};

/** Does all checks. One that fails does not keep the others from being done. */
export async function examine(
  choice: DoctorChoice,
  world: DoctorWorld = thisWorld,
): Promise<Check[]> {
  const { machine } = world;
  const isSimulated = choice.simulate !== undefined;
  const program = [
    checkNode(world.nodeVersion),
    checkKoffi(),
    checkArchitecture(world.arch),
    checkOpenFiles(machine.proc, choice.connections),
  ];
  const devices = isSimulated
    ? [skipped('hypervisor', 'the Xen host is simulated: the kernel is not asked')]
    : examineXen(machine);
  const canBeAsked = devices.every(({ status }) => status !== 'failed');
  return [
    ...program,
    ...devices,
    ...(canBeAsked ? await examineGuest(choice, world) : [notAsked]),
    ...(await checkService(machine, world.run)),
  ];
}

function examineXen(machine: Machine): Check[] {
  const hypervisor = checkHypervisor(machine);
  // Without Xen there are no devices, which one sentence says well enough.
  if (hypervisor.status === 'failed') return [hypervisor];
  const devices: readonly XenDevice[] = ['gntalloc', 'evtchn', 'xenbus'];
  return [hypervisor, ...devices.map((device) => checkDevice(machine, device))];
}

const notAsked = skipped('xenstore', 'the vbds and the grant limit are seen once Xen can be used');

async function examineGuest(choice: DoctorChoice, { machine }: DoctorWorld): Promise<Check[]> {
  const deviceCount = Math.max(1, choice.vbds.length);
  try {
    return await withGuest(
      choice,
      async (guest) => {
        const budget = guest.host.grantBudget();
        const wish = transportWish(choice, deviceShare(budget.limitPages, deviceCount));
        const { queues, ringPageOrder, maxIndirectSegments } = wish;
        const need = pageNeed(queues, ringPageOrder, maxIndirectSegments > 0);
        return [
          checkGrantLimit(budget, need, deviceCount),
          ...(await checkVbds(guest, choice, wish)),
        ];
      },
      machine,
    );
  } catch (error) {
    if (!(error instanceof DaemonError)) throw error;
    const mend = 'ls -l /dev/xen/xenbus; in dom0, start xenstored';
    return [failed('xenstore', `XenStore does not answer: ${error.message}`, mend)];
  }
}

/** One line about all checks together. */
export function summarise(checks: readonly Check[]): Check {
  const count = (status: Check['status']): number =>
    checks.filter((check) => check.status === status).length;
  const failures = count('failed');
  const notes = count('warning');
  const extra = notes === 0 ? '' : `, ${notes} could be better`;
  return failures === 0
    ? ok('summary', `${count('ok')} checks are in order${extra}`)
    : failed('summary', `${failures} of ${checks.length} checks failed${extra}`, 'see above');
}
