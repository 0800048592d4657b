// `xenblk-nbd serve` on a vbd of the lab, as its users start it.

import type { Address } from '../../support/byte-connection.ts';
import { Daemon } from '../../support/daemon.ts';
import type { Lab } from './scenario.ts';
import type { Vbd } from './vbd-fixture.ts';

export interface Served {
  readonly daemon: Daemon;
  readonly socket: string;
  readonly address: Address;
}

/** Starts the daemon and waits for its `ready:` line; killed at the end if it still runs. */
export async function serveVbd(lab: Lab, vbd: Vbd, ...options: string[]): Promise<Served> {
  const socket = `/run/${vbd.name}.sock`;
  const startMs = Date.now();
  const daemon = await Daemon.start([vbd.name, '--unix', socket, ...options]);
  lab.cleanUp(async () => {
    if (daemon.result !== undefined) return;
    lab.step(`the daemon still ran; its log:\n${daemon.log}`);
    daemon.kill('SIGKILL');
    await daemon.waitForEnd();
  });
  lab.step(`serve ${vbd.name}: ready after ${Date.now() - startMs} ms: ${daemon.uris.join(' ')}`);
  return { daemon, socket, address: { path: socket } };
}
