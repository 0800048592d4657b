/** What `serve` was asked to do, parsed and checked. */

import { type Stats, statSync } from 'node:fs';
import type { ListenAddress, ServeAddress } from './addresses.ts';
import type { VbdUse } from './device-options.ts';
import { DaemonError, UsageError } from './errors.ts';
import type { LogLevel } from './log.ts';
import type { TlsOptions } from './tls-credentials.ts';
import type { UnixAccess } from './unix-access.ts';

/** The whole command line of `serve`. */
export interface ServeOptions {
  /** The vbds by name, number or backend params; empty for the only free one. */
  readonly vbds: readonly string[];
  readonly use: VbdUse;
  /** Detach the kernel's driver first. */
  readonly isTakenOver: boolean;
  /** Serve this on the simulated host; undefined for real Xen. */
  readonly simulate: SimulatedDisk | undefined;
  /** Lists of `--simulate-features` and `--simulate-faults`, as given. */
  readonly simulateFeatures: string | undefined;
  readonly simulateFaults: string | undefined;
  /** Where to listen; empty for sockets that the service manager passes, or else the default. */
  readonly listen: readonly ServeAddress[];
  /** Serve one client on stdin and stdout, and listen nowhere. */
  readonly isStdio: boolean;
  readonly unixAccess: UnixAccess;
  /** Silence after which TCP asks whether a client is still there; 0 for never. */
  readonly keepAliveMs: number;
  readonly tls: TlsOptions;
  /** Where metrics, health and the status page are; undefined for nowhere. */
  readonly metrics: ListenAddress | undefined;
  /** Export name of a single vbd; undefined for the vbd's name. */
  readonly exportName: string | undefined;
  readonly isReadOnly: boolean;
  readonly limits: ClientLimits;
  /** Record each request in this file. */
  readonly trace: string | undefined;
  readonly logLevel: LogLevel;
  readonly pidFile: string | undefined;
}

/** What clients may take of the server. */
export interface ClientLimits {
  /** Clients at once. */
  readonly connections: number;
  /** Time for the handshake, that of TLS included. */
  readonly handshakeMs: number;
  /** Options in one handshake, and bytes of one option. */
  readonly options: number;
  readonly optionBytes: number;
  /** Bytes of one read or write. */
  readonly requestBytes: number;
  /** Requests in progress of one client, and in one ring. */
  readonly clientRequests: number;
  readonly requests: number;
  /** Bytes of reads and writes in progress of one client, and in one ring. */
  readonly clientBytes: number;
  readonly bytes: number;
  /** Memory of each ring for reads that do not fit into the pages granted to the backend. */
  readonly bufferBytes: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

/** What a client may take when nobody says otherwise. */
export const DEFAULT_LIMITS: ClientLimits = Object.freeze({
  connections: 1024,
  handshakeMs: 10_000,
  options: 32,
  optionBytes: 64 * KIB,
  requestBytes: 64 * MIB,
  clientRequests: 256,
  requests: 1024,
  clientBytes: 64 * MIB,
  bytes: 256 * MIB,
  bufferBytes: 64 * MIB,
});

/** So much of each client's reads and writes is in progress whatever the others do. */
export const OWN_BYTES: number = 256 * KIB;

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
