/** What `serve` was asked to do, parsed and checked. */

import { type Stats, statSync } from 'node:fs';
import type { ListenAddress } from './addresses.ts';
import { DaemonError, UsageError } from './errors.ts';
import type { LogLevel } from './log.ts';

export interface ServeOptions {
  /** The vbd by name, number or backend params; undefined for the only free one. */
  readonly vbd: string | undefined;
  /** Serve this on the simulated host; undefined for real Xen. */
  readonly simulate: SimulatedDisk | undefined;
  /** Lists of `--simulate-features` and `--simulate-faults`, as given. */
  readonly simulateFeatures: string | undefined;
  readonly simulateFaults: string | undefined;
  readonly listen: readonly ListenAddress[];
  /** Export name; undefined for the vbd's name. */
  readonly exportName: string | undefined;
  readonly isReadOnly: boolean;
  readonly queues: number | undefined;
  readonly ringPageOrder: number | undefined;
  readonly maxConnections: number;
  readonly logLevel: LogLevel;
  readonly pidFile: string | undefined;
}

/** A file, or memory of a size, that plays the disk. */
export type SimulatedDisk =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'memory'; readonly sizeBytes: number };

const SECTOR_BYTES = 512;
const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** `64M`, `2G`, `1048576`: whole bytes, with a binary unit; undefined when it is no size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,15})([KMGT]?)(?:i?B)?$/i.exec(text);
  const unit = UNITS[match?.[2]?.toUpperCase() ?? ''];
  if (match === null || unit === undefined) return undefined;
  const sizeBytes = Number(match[1]) * unit;
  return Number.isSafeInteger(sizeBytes) ? sizeBytes : undefined;
}

/** The argument of `--simulate`: a size, or else the path of a file. @throws UsageError */
export function parseSimulatedDisk(text: string): SimulatedDisk {
  const sizeBytes = parseSize(text);
  if (sizeBytes === undefined) return { kind: 'file', path: text };
  if (sizeBytes === 0 || sizeBytes % SECTOR_BYTES !== 0) {
    throw new UsageError(
      `--simulate ${text}: a disk's size is a multiple of ${SECTOR_BYTES} bytes, and not zero`,
    );
  }
  return { kind: 'memory', sizeBytes };
}

/** Refuses a file that cannot be a disk, in words. @throws DaemonError */
export function checkDiskFile(path: string): void {
  let stat: Stats;
  try {
    stat = statSync(path);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new DaemonError(
      isMissing
        ? `--simulate ${path}: no such file; create it, for example with \`truncate -s 1G ${path}\``
        : `--simulate ${path}: ${(error as Error).message}`,
      { cause: error },
    );
  }
  if (stat.isBlockDevice()) return;
  if (!stat.isFile()) throw new DaemonError(`--simulate ${path}: not a file or block device`);
  if (stat.size === 0 || stat.size % SECTOR_BYTES !== 0) {
    throw new DaemonError(
      `--simulate ${path}: its size, ${stat.size} bytes, is not a positive multiple of ` +
        `${SECTOR_BYTES}; \`truncate -s %${SECTOR_BYTES} ${path}\` rounds it up`,
    );
  }
}
