// Machines and vbds for tests of what is seen on a Xen guest.
import { mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { XenbusState } from '../../src/blkif/index.ts';
import type { VbdDescription } from '../../src/frontend/index.ts';
import type { Machine } from '../../src/survey/index.ts';
import { fakeMachine } from '../xen-host/fake-machine.ts';

interface Teardown {
  teardown(action: () => void): unknown;
}

/** A machine with these files and links, by path relative to its root. */
export function surveyedMachine(
  test: Teardown,
  files: Readonly<Record<string, string>>,
  links: Readonly<Record<string, string>> = {},
): Machine {
  const machine = fakeMachine(test, files);
  for (const [path, target] of Object.entries(links)) {
    const link = join(machine.root, path);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(target.replace(/^~/, machine.root), link);
  }
  return { ...machine, dev: join(machine.root, 'dev') };
}

/** xvdb as it stands before anybody connects, with what is to be different. */
export function vbd(changes: Partial<VbdDescription> = {}): VbdDescription {
  return {
    id: 51728,
    name: 'xvdb',
    path: 'device/vbd/51728',
    backendPath: '/local/domain/0/backend/vbd/7/51728',
    backendId: 0,
    backendType: 'vbd',
    state: XenbusState.Initialising,
    backendState: XenbusState.InitWait,
    deviceType: 'disk',
    mode: 'w',
    sizeBytes: undefined,
    params: '/dev/vg/disk',
    holder: undefined,
    ...changes,
  };
}
