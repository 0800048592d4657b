/** `--metrics`: listens for those who want to look at the daemon, and tells them what there is. */

import type { Monitor, MonitorSource } from '../monitor/index.ts';
import { formatAddress, type ListenAddress } from './addresses.ts';
import { type Listener, listen } from './listener.ts';
import type { Logger } from './log.ts';
import { packageVersion } from './package-version.ts';
import type { Reception } from './reception.ts';
import type { ServedVbds } from './served-vbds.ts';
import type { UnixAccess } from './unix-access.ts';

export interface MonitoringOptions {
  readonly address: ListenAddress;
  /** Of a Unix socket. */
  readonly access: UnixAccess;
  readonly reception: Reception;
  readonly log: Logger;
}

export class Monitoring {
  readonly #monitor: Monitor;
  readonly #listener: Listener;

  private constructor(monitor: Monitor, listener: Listener) {
    this.#monitor = monitor;
    this.#listener = listener;
  }

  /**
   * Listens, before there is anything to see. `vbds` and `isStopping` are asked at each look.
   *
   * @throws DaemonError when the address is in use, or cannot be had.
   */
  static async open(
    options: MonitoringOptions,
    vbds: () => ServedVbds | undefined,
    isStopping: () => boolean,
  ): Promise<Monitoring> {
    const { address, access, reception, log } = options;
    // The library that writes the metrics is loaded by those alone who want them.
    const { openMonitor } = await import('../monitor/index.ts');
    const source: MonitorSource = {
      version: packageVersion(),
      state: () => (isStopping() ? 'stopping' : vbds() === undefined ? 'starting' : 'serving'),
      vbds: () => vbds()?.devices.map(describeForMonitor) ?? [],
      clients: () => reception.clients,
      refusals: () => reception.refusals,
    };
    const monitor = openMonitor({ source, startedMs: Date.now() - process.uptime() * 1000 });
    try {
      const listener = await listen(address, {
        access,
        keepAliveMs: 0,
        server: monitor.server,
        onClient: () => undefined,
        onTrouble: (error) => {
          log.warn('metrics-failed', {}, `nobody can look at the moment: ${error.message}`);
        },
      });
      const where = formatAddress(listener.address);
      const url = listener.address.kind === 'tcp' ? `http://${where}/` : where;
      log.info('metrics-open', { address: url }, `status, metrics and health are at ${url}`);
      return new Monitoring(monitor, listener);
    } catch (error) {
      monitor.close();
      throw error;
    }
  }

  close(): void {
    this.#listener.close();
    this.#monitor.close();
  }
}

type MonitoredVbd = ReturnType<MonitorSource['vbds']>[number];

function describeForMonitor(device: ServedVbds['devices'][number]): MonitoredVbd {
  const { vbd, exportEntry, summary, isWaiting, lanes } = device;
  return {
    name: vbd.name,
    exportName: exportEntry.name,
    sizeBytes: exportEntry.sizeBytes,
    isReadOnly: exportEntry.isReadOnly,
    isWaiting,
    slotCount: summary?.slotCount ?? 0,
    pageCount: summary?.poolPageCount ?? 0,
    features: summary?.details ?? {},
    lanes,
  };
}
