/** From what the operator typed to one vbd, or an error that lists what there is. Pure. */

import { DeviceNameError, parseDeviceNumber } from '../blkif/index.ts';
import { FrontendError } from './errors.ts';
import type { VbdDescription } from './vbd.ts';

/**
 * Finds the vbd that is meant: by name (`xvdb`, `/dev/xvdb`), by number (`51728`), or by the back
 * end's `params` without the words that name a driver. Without a wish, the only one that nobody
 * drives; when a CD-ROM and one disk are free, the disk.
 *
 * @throws FrontendError NO_VBD, AMBIGUOUS or HELD; the message lists the candidates.
 */
export function selectVbd(vbds: readonly VbdDescription[], wanted?: string): VbdDescription {
  if (vbds.length === 0) {
    throw new FrontendError(
      'NO_VBD',
      'This guest has no virtual block device; attach one first, e.g. with xl block-attach.',
    );
  }
  const vbd = wanted === undefined ? selectFree(vbds) : selectWanted(vbds, wanted);
  if (vbd.holder !== undefined) {
    throw new FrontendError(
      'HELD',
      `${vbd.name} is in use by ${vbd.holder}; stop that first, choose another vbd, or detach the ` +
        `kernel's driver with --take-over: ${listCandidates(vbds)}.`,
    );
  }
  return vbd;
}

function selectFree(vbds: readonly VbdDescription[]): VbdDescription {
  const free = vbds.filter((vbd) => vbd.holder === undefined);
  const disks = free.filter((vbd) => vbd.deviceType !== 'cdrom');
  const candidates = disks.length === 0 ? free : disks;
  const [only, another] = candidates;
  if (only === undefined) {
    throw new FrontendError(
      'HELD',
      `No virtual block device is free: ${listCandidates(vbds)}; name one and give --take-over.`,
    );
  }
  if (another !== undefined) {
    throw new FrontendError(
      'AMBIGUOUS',
      `Several virtual block devices are free: ${listCandidates(candidates)}; name one.`,
    );
  }
  return only;
}

function selectWanted(vbds: readonly VbdDescription[], wanted: string): VbdDescription {
  const id = tryParseDeviceNumber(wanted);
  const named = vbds.find((vbd) => vbd.id === id);
  if (named !== undefined) {
    return named;
  }
  const target = stripParamsPrefix(wanted);
  const matching = vbds.filter(
    (vbd) => vbd.params !== undefined && stripParamsPrefix(vbd.params) === target,
  );
  const [only, another] = matching;
  if (another !== undefined) {
    throw new FrontendError(
      'AMBIGUOUS',
      `Several virtual block devices are backed by ${quote(wanted)}: ` +
        `${listCandidates(matching)}; name one of them.`,
    );
  }
  if (only === undefined) {
    throw new FrontendError(
      'NO_VBD',
      `There is no virtual block device ${quote(wanted)}; this guest has ${listCandidates(vbds)}.`,
    );
  }
  return only;
}

/** Words that name a driver before the file or device, e.g. `tap2:aio:/images/disk`. */
const PARAMS_PREFIX = /^(?:(?:tapdisk|tap2|tap|aio|ioemu|file|phy):)+/;

function stripParamsPrefix(params: string): string {
  return params.replace(PARAMS_PREFIX, '');
}

function tryParseDeviceNumber(text: string): number | undefined {
  try {
    return parseDeviceNumber(text);
  } catch (error) {
    if (error instanceof DeviceNameError) {
      // It may still be a params string, which can be any text.
      return undefined;
    }
    throw error;
  }
}

function listCandidates(vbds: readonly VbdDescription[]): string {
  return vbds.map(describeCandidate).join(', ');
}

function describeCandidate(vbd: VbdDescription): string {
  const details = [String(vbd.id)];
  if (vbd.params !== undefined) {
    details.push(vbd.params.slice(0, 100));
  }
  if (vbd.holder !== undefined) {
    details.push(`in use by ${vbd.holder}`);
  }
  return `${vbd.name} (${details.join(', ')})`;
}

function quote(text: string): string {
  return `"${text.slice(0, 100)}"`;
}
