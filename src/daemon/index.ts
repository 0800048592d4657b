export {
  type ListenAddress,
  NBD_PORT,
  parseTcpAddress,
  parseUnixAddress,
} from './addresses.ts';
export { DaemonError, UsageError } from './errors.ts';
export { LOG_LEVELS, type LogLevel } from './log.ts';
export { serve } from './serve.ts';
export {
  parseSimulatedDisk,
  parseSize,
  type ServeOptions,
  type SimulatedDisk,
} from './serve-options.ts';
