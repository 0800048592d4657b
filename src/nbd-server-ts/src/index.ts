// nbd-server-ts: an NBD server for Node that serves any block backend. The sans-IO half is exported
// as nbd-server-ts/protocol.

export type { BlockBackend, ExportInfoOptions, MaybePromise } from './backend.ts';
export { baseAllocation } from './base-allocation.ts';
export { BufferBackend } from './buffer-backend.ts';
export type { Clock } from './clock.ts';
export { NbdCmd, NbdCmdFlag, NbdErrno, NbdFlag, NbdState } from './constants.ts';
export {
  NbdError,
  type NbdErrorCode,
  NbdServerError,
  type NbdServerErrorCode,
  nbdErrnoOf,
} from './errors.ts';
export { FileBackend, type FileBackendOptions } from './file-backend.ts';
export { DEFAULT_SERVER_LIMITS, type ServerLimits } from './limits.ts';
export type { ListenAddress, NbdAddress } from './listen.ts';
export type { Extent, MetaContext } from './meta-context.ts';
export type { ExportConfig } from './served-exports.ts';
export { type CloseReport, NbdServer, type NbdServerOptions } from './server.ts';
export type { LogLevel, LogLine, LogSink } from './server-log.ts';
export { SparseMemoryBackend } from './sparse-memory-backend.ts';
export { type NbdTlsConfig, type PskTable, parsePskFile } from './tls.ts';
