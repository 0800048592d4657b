/** Where the daemon is that `top` is to show. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DaemonError, type ListenAddress, parseMetricsAddress } from '../daemon/index.ts';

/** Where the units of systemd put the sockets for metrics. */
const RUNTIME_FOLDER = '/run/xenblk-nbd';
const SUFFIX = '.metrics';

/**
 * The address of `--metrics` as it was given to `serve`, or the vbd of a unit, `xvdb`; without any,
 * the only unit that runs.
 *
 * @throws DaemonError when it is not clear which; UsageError for an address that is none
 */
export function findDaemon(
  wanted: string | undefined,
  folder: string = RUNTIME_FOLDER,
): ListenAddress {
  const names = socketNames(folder);
  if (wanted !== undefined) {
    return names.includes(wanted) ? socketOf(folder, wanted) : parseMetricsAddress(wanted);
  }
  const [only, another] = names;
  if (only === undefined) {
    throw new DaemonError(
      `there is no daemon with metrics in ${folder}: give the address that you gave to ` +
        '`serve --metrics`',
    );
  }
  if (another !== undefined) {
    throw new DaemonError(`several daemons run: ${names.join(', ')}; say which`);
  }
  return socketOf(folder, only);
}

function socketOf(folder: string, name: string): ListenAddress {
  return { kind: 'unix', path: join(folder, `${name}${SUFFIX}`) };
}

function socketNames(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(SUFFIX))
      .map((name) => name.slice(0, -SUFFIX.length))
      .sort();
  } catch {
    return []; // No such folder: no unit has run yet.
  }
}
