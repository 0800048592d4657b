/**
 * The library: Xen virtual block devices for programs, with the meaning of MirageOS's Block module.
 */

export { FrontendError, type FrontendErrorCode } from '../frontend/index.ts';
export { HostError, type HostErrorCode } from '../host/index.ts';
export { SimulationOptionError } from '../sim/index.ts';
export type { BlockDevice, BlockInfo } from './block-device.ts';
export {
  type BlockError,
  type BlockResult,
  type BlockWriteError,
  type BlockWriteResult,
  formatError,
  formatWriteError,
} from './block-error.ts';
export { connect } from './connect.ts';
export type { BlockLog, ConnectOptions } from './options.ts';
