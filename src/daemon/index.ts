import type { ServeOptions } from './serve-options.ts';

export {
  formatAddress,
  type ListenAddress,
  NBD_PORT,
  parseMetricsAddress,
  parseServeAddress,
  parseUnixAddress,
  type ServeAddress,
} from './addresses.ts';
export type { VbdUse } from './device-options.ts';
export { DaemonError, UsageError } from './errors.ts';
export { forPeople } from './for-people.ts';
export { type DetachedSocket, detachSocket } from './handover.ts';
export { type HostChoice, openHost } from './host.ts';
export { createLogger, LOG_LEVELS, type Logger, type LogLevel } from './log.ts';
export { packageVersion } from './package-version.ts';
export { type PageNeed, pageNeed } from './page-budget.ts';
export {
  type ClientLimits,
  DEFAULT_LIMITS,
  parseSimulatedDisk,
  parseSize,
  type ServeOptions,
  type SimulatedDisk,
} from './serve-options.ts';
export { formatSize } from './status.ts';
export { Supervisor } from './supervisor.ts';
export { takeFromKernel } from './take-from-kernel.ts';
export type { TlsOptions } from './tls-credentials.ts';
export { deviceShare, type TransportUse, transportWish } from './transport-wish.ts';
export {
  PRIVATE_ACCESS,
  parseUnixMode,
  parseUnixOwner,
  type UnixAccess,
} from './unix-access.ts';

/**
 * Runs the daemon until it is told to stop. Loaded when it is called: commands that serve nothing
 * start without it.
 *
 * @throws DaemonError or UsageError for what people can mend; anything else is a fault of ours.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const daemon = await import('./serve.ts');
  await daemon.serve(options);
}
