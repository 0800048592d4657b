/**
 * A vbd of the kernel's xen-blkback, or of QEMU, served from a file through a loop device, with
 * dom0 as frontend domain too. The toolstack's part (libxl) is a handful of XenStore writes, made
 * here with Xen's own tools. The file is what the tests compare with: nothing of ours touches it.
 */
import { open, rm } from 'node:fs/promises';
import { eventually, run } from './commands.ts';
import type { Lab } from './scenario.ts';
import { storeExists, storeRead, storeReadIfAny, storeRemove, storeWrite } from './store.ts';

export interface VbdOptions {
  readonly sizeBytes: number;
  readonly isReadOnly?: boolean;
  readonly sectorSize?: 512 | 4096;
  /** Who serves it: the kernel's xen-blkback, or QEMU, which must run. */
  readonly backend?: Backend;
}

export type Backend = 'blkback' | 'qemu';

export interface Vbd {
  /** Virtual device number, e.g. 51712 for xvda. */
  readonly id: number;
  readonly name: string;
  /** The file behind the loop device. */
  readonly file: string;
  readonly loopDevice: string;
  readonly backend: Backend;
  readonly frontendPath: string;
  readonly backendPath: string;
}

let created = 0;

/** Makes a vbd in state 1/1 and waits until it is offered (state 2). */
export async function createVbd(lab: Lab, options: VbdOptions): Promise<Vbd> {
  // xvda, xvdb, ... A new number each time, so that scenarios cannot see each other's leavings.
  const index = created++ % 16;
  const id = (202 << 8) | (index << 4);
  const name = `xvd${String.fromCharCode(97 + index)}`;
  const file = `/tmp/${name}-${created}.img`;
  const handle = await open(file, 'wx');
  await handle.truncate(options.sizeBytes);
  await handle.close();

  const { backend = 'blkback' } = options;
  const mode = options.isReadOnly === true ? ['-r'] : [];
  const sectorSize = String(options.sectorSize ?? 512);
  const arguments_ = ['--show', '-f', '-b', sectorSize, ...mode, file];
  const loopDevice = (await run('losetup', ...arguments_)).trim();

  const vbd: Vbd = {
    id,
    name,
    file,
    loopDevice,
    backend,
    frontendPath: `/local/domain/0/device/vbd/${id}`,
    backendPath: `/local/domain/0/backend/${backend === 'qemu' ? 'qdisk' : 'vbd'}/0/${id}`,
  };
  await plugVbd(vbd, options.isReadOnly === true ? 'r' : 'w');
  lab.cleanUp(async () => {
    await removeVbd(vbd);
    await run('losetup', '-d', loopDevice);
    await rm(file);
  });
  lab.step(
    `vbd ${name} (${id}): ${options.sizeBytes} bytes on ${loopDevice}, offered by ${backend}`,
  );
  return vbd;
}

/**
 * Writes what libxl would write for a new disk. Backends are made anew in odd ways, too: then the
 * frontend's directory is left as it is.
 */
export async function plugVbd(
  vbd: Vbd,
  mode: 'r' | 'w',
  directories: 'both' | 'backend-only' = 'both',
): Promise<void> {
  const { frontendPath: front, backendPath: back } = vbd;
  const isQemu = vbd.backend === 'qemu';
  const backendKeys = {
    [`${back}/frontend`]: front,
    [`${back}/frontend-id`]: '0',
    [`${back}/online`]: '1',
    [`${back}/mode`]: mode,
    [`${back}/params`]: isQemu ? `aio:${vbd.loopDevice}` : vbd.loopDevice,
    [`${back}/type`]: isQemu ? 'qdisk' : 'phy',
    [`${back}/dev`]: vbd.name,
    [`${back}/device-type`]: 'disk',
    [`${back}/state`]: '1',
  };
  const frontendKeys = {
    [`${front}/backend`]: back,
    [`${front}/backend-id`]: '0',
    [`${front}/virtual-device`]: String(vbd.id),
    [`${front}/device-type`]: 'disk',
    [`${front}/state`]: '1',
  };
  await storeWrite({ ...backendKeys, ...(directories === 'both' ? frontendKeys : {}) });
  if (!isQemu) {
    // What the hotplug script does: it names the block device, in hex.
    const minor = Number(vbd.loopDevice.slice('/dev/loop'.length));
    await storeWrite({ [`${back}/physical-device`]: `7:${minor.toString(16)}` });
  }
  // Connected at once where a frontend is waiting for it.
  await waitForBackendState(vbd, '2', '4');
}

/**
 * Takes the vbd away as a toolstack does, which gives a live frontend 10 s to let go. One that died
 * at Connected is helped by hand.
 */
export async function unplugVbd(vbd: Vbd): Promise<void> {
  const { frontendPath: front, backendPath: back } = vbd;
  if (await storeExists(back)) {
    if ((await storeReadIfAny(`${back}/state`)) !== '6') {
      // In one transaction, or a directory that is gone by the second write is made anew by it.
      await storeWrite({ [`${back}/online`]: '0', [`${back}/state`]: '5' });
      await waitForEnd(vbd).catch(async () => {
        await storeWrite({ [`${front}/state`]: '6' });
        await waitForEnd(vbd);
      });
    }
    // Which QEMU may be about to do.
    if (await storeExists(back)) await storeRemove(back).catch(() => undefined);
  }
  if (await storeExists(front)) await storeRemove(front);
}

/** What unplugVbd does for a vbd whose frontend is known to be dead or closed. */
export async function removeVbd(vbd: Vbd): Promise<void> {
  if (await storeExists(vbd.frontendPath)) await storeWrite({ [`${vbd.frontendPath}/state`]: '6' });
  await unplugVbd(vbd);
}

/** QEMU removes the directory itself. */
function waitForEnd({ backendPath }: Vbd): Promise<true> {
  return eventually(`${backendPath} is Closed, or gone`, 60_000, async () =>
    ['6', undefined].includes(await storeReadIfAny(`${backendPath}/state`)) ? true : undefined,
  );
}

export function waitForBackendState(vbd: Vbd, ...wanted: string[]): Promise<string> {
  return eventually(`${vbd.backendPath}/state becomes ${wanted.join()}`, 60_000, async () => {
    const seen = await storeReadIfAny(`${vbd.backendPath}/state`);
    return seen !== undefined && wanted.includes(seen) ? seen : undefined;
  });
}

/** e.g. `4/4`: the frontend's state and the backend's. */
export async function states(vbd: Vbd): Promise<string> {
  const front = await storeRead(`${vbd.frontendPath}/state`);
  return `${front}/${await storeRead(`${vbd.backendPath}/state`)}`;
}
