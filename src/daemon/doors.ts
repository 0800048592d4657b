/**
 * The ways in: sockets that we listen on, sockets that the service manager passed, or one client on
 * stdin and stdout. Says on stdout where clients find us.
 */

import { type PassedDescriptor, takePassedDescriptors } from './activation.ts';
import { formatAddress, type ListenAddress, NBD_PORT, nbdUri } from './addresses.ts';
import { type Listener, type ListenOptions, listen, listenOnPassed } from './listener.ts';
import type { Logger } from './log.ts';
import { ORPHAN_FDNAME, type OrphanedChannels } from './orphaned-channels.ts';
import { peerOf, type Reception } from './reception.ts';
import { RefusalLog } from './refusal-log.ts';
import type { ServeOptions } from './serve-options.ts';
import type { ServedVbds } from './served-vbds.ts';
import { openStdio } from './stdio.ts';

const DEFAULT_ADDRESS: ListenAddress = { kind: 'tcp', host: '127.0.0.1', port: NBD_PORT };

export class Doors {
  readonly #options: ServeOptions;
  readonly #reception: Reception;
  readonly #orphans: OrphanedChannels;
  readonly #log: Logger;
  readonly #refusals: RefusalLog;
  readonly #listeners: Listener[] = [];

  constructor(options: ServeOptions, reception: Reception, orphans: OrphanedChannels, log: Logger) {
    this.#options = options;
    this.#reception = reception;
    this.#orphans = orphans;
    this.#log = log;
    this.#refusals = new RefusalLog(log);
  }

  /**
   * Opens them all. Clients that come before there is anything to serve wait.
   *
   * @throws DaemonError
   */
  async open(): Promise<void> {
    const passed = takePassedDescriptors(process.env);
    const isOrphan = ({ name }: PassedDescriptor): boolean => name === ORPHAN_FDNAME;
    this.#orphans.inherit(passed.filter(isOrphan).map(({ fd }) => fd));
    if (this.#options.isStdio) {
      this.#reception.arrived(openStdio(), 'stdin');
      return;
    }
    const options: ListenOptions = {
      access: this.#options.unixAccess,
      keepAliveMs: this.#options.keepAliveMs,
      onClient: (socket) => this.#reception.arrived(socket, peerOf(socket)),
      onVsockClient: (stream, peer) => this.#reception.arrived(stream, peer),
      onTrouble: (error) => {
        const message = `a client could not be taken in: ${error.message}`;
        this.#refusals.warn('accept-failed', {}, message);
      },
    };
    for (const descriptor of passed) {
      if (!isOrphan(descriptor)) this.#listeners.push(await listenOnPassed(descriptor, options));
    }
    const { listen: wanted } = this.#options;
    const isBare = wanted.length === 0 && this.#listeners.length === 0;
    for (const address of isBare ? [DEFAULT_ADDRESS] : wanted) {
      this.#listeners.push(await listen(address, options));
    }
  }

  /** Prints a line for each address and export, and what a newcomer may type next. */
  announce(vbds: ServedVbds): void {
    const isSecure = this.#options.tls.mode === 'require';
    const uris = this.#listeners.flatMap(({ address }) =>
      vbds.devices.map(({ exportEntry }) => nbdUri(address, exportEntry.name, isSecure)),
    );
    for (const uri of uris) process.stdout.write(`ready: ${uri}\n`);
    const [uri] = uris;
    const isNewcomer = this.#options.simulate !== undefined && this.#options.tls.mode === 'off';
    if (isNewcomer && uri !== undefined) this.#printHints(uri);
  }

  close(): void {
    for (const listener of this.#listeners) {
      listener.close();
      const where = formatAddress(listener.address);
      this.#log.debug('closed', {}, `no longer listening at ${where}`);
    }
    this.#refusals.close();
  }

  #printHints(uri: string): void {
    const [listener] = this.#listeners;
    if (listener === undefined || listener.address.kind === 'vsock') return;
    const { address } = listener;
    const device =
      address.kind === 'unix'
        ? `nbd-client -unix ${address.path} /dev/nbd0`
        : `nbd-client ${address.host} ${address.port} /dev/nbd0`;
    process.stderr.write(
      `This is a simulated disk. Look at it from another terminal, for example with\n` +
        `  nbdinfo '${uri}'\n` +
        `  nbdcopy --progress '${uri}' copy.img\n` +
        `  qemu-img info '${uri}'\n` +
        `  sudo ${device}\n` +
        `Stop with Ctrl-C.\n`,
    );
  }
}
