// The kernel's NBD client: /dev/nbdN on a served export, through nbd-client.
import { existsSync, readFileSync } from 'node:fs';
import { eventually, run } from './commands.ts';
import type { Lab } from './scenario.ts';

export interface NbdDevice {
  /** e.g. `/dev/nbd0` */
  readonly path: string;
  disconnect(): Promise<void>;
}

/** Attaches the export behind a Unix socket. Detached at the end of the scenario if not before. */
export async function attachNbd(
  lab: Lab,
  index: number,
  socket: string,
  exportName: string,
): Promise<NbdDevice> {
  const path = `/dev/nbd${index}`;
  const sizeFile = `/sys/block/nbd${index}/size`;
  const sectors = (): number => Number(readFileSync(sizeFile, 'utf8'));
  await run('nbd-client', '-unix', socket, path, '-N', exportName);
  await eventually(`${path} has a size`, 10_000, () => (sectors() > 0 ? true : undefined));

  let isAttached = true;
  const disconnect = async (): Promise<void> => {
    if (!isAttached) return;
    isAttached = false;
    await run('nbd-client', '-d', path);
    const pidFile = `/sys/block/nbd${index}/pid`;
    await eventually(`${path} is free`, 10_000, () => (existsSync(pidFile) ? undefined : true));
  };
  lab.cleanUp(disconnect);
  lab.step(`nbd-client attached ${path}: ${sectors()} sectors`);
  return { path, disconnect };
}
