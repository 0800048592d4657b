/** `list`: the vbds of this guest, one row each. */

import { type XenbusState, xenbusStateName } from '../blkif/index.ts';
import { formatSize } from '../daemon/index.ts';
import type { VbdDescription } from '../frontend/index.ts';
import { describeDriver, type VbdDriver } from './drivers.ts';
import type { Guest } from './guest.ts';
import { formatTable } from './table.ts';

/** One vbd, as `list --json` prints it. `null` is what cannot be read, or is not known yet. */
export interface ListedVbd {
  readonly name: string;
  readonly number: number;
  /** Told by the backend once it was connected for the first time. */
  readonly sizeBytes: number | null;
  /** `r` or `w` */
  readonly mode: string | null;
  /** `disk` or `cdrom` */
  readonly deviceType: string;
  /** `state` is the xenbus state's name, here as below. */
  readonly state: string;
  readonly backend: {
    /** `vbd` for the kernel's, `qdisk` for QEMU. */
    readonly type: string | null;
    readonly domain: number | null;
    readonly path: string | null;
    readonly params: string | null;
    readonly state: string;
  };
  readonly drivenBy: VbdDriver;
}

/** The vbds of a guest, by number. */
export async function listGuestVbds(guest: Guest): Promise<ListedVbd[]> {
  const vbds = await guest.vbds();
  return vbds.map((vbd) => describeForList(vbd, guest.driverOf(vbd)));
}

/** One row of the list. */
export function describeForList(vbd: VbdDescription, drivenBy: VbdDriver): ListedVbd {
  const state = (value: XenbusState): string => xenbusStateName(value);
  return {
    name: vbd.name,
    number: vbd.id,
    sizeBytes: vbd.sizeBytes ?? null,
    mode: vbd.mode ?? null,
    deviceType: vbd.deviceType,
    state: state(vbd.state),
    backend: {
      type: vbd.backendType ?? null,
      domain: vbd.backendId ?? null,
      path: vbd.backendPath ?? null,
      params: vbd.params ?? null,
      state: state(vbd.backendState),
    },
    drivenBy,
  };
}

/** The list as a table for people. */
export function formatList(vbds: readonly ListedVbd[]): string {
  if (vbds.length === 0) {
    return 'This guest has no virtual block device; attach one, e.g. with xl block-attach.\n';
  }
  return formatTable(
    ['NAME', 'NUMBER', 'SIZE', 'MODE', 'BACKEND', 'STATE', 'DRIVEN BY'],
    vbds.map(({ name, number, sizeBytes, mode, deviceType, backend, state, drivenBy }) => [
      name,
      String(number),
      sizeBytes === null ? '-' : formatSize(sizeBytes),
      `${mode ?? '-'}${deviceType === 'cdrom' ? ', cdrom' : ''}`,
      `${backend.type ?? '-'}@${backend.domain ?? '-'}${backend.params ? ` ${backend.params}` : ''}`,
      `${state}/${backend.state}`,
      describeDriver(drivenBy),
    ]),
  );
}
