/** The life of a vbd as seen from its front end: finding it, connecting, keeping it, closing it. */

export type { AttachedQueue, Attachment, DetachReason } from './attachment.ts';
export { type Clock, systemClock } from './clock.ts';
export type { ViewMemory } from './connection.ts';
export { FrontendError, type FrontendErrorCode } from './errors.ts';
export { connectVbd, Frontend } from './frontend.ts';
export { prepareHandBack } from './hand-back.ts';
export { inspectVbd, type VbdInspection } from './inspect.ts';
export { type Goal, interpret, type Link, type Situation } from './interpret.ts';
export {
  type FrontendEvent,
  type FrontendState,
  isFinal,
  LIFE_CYCLE,
  type LifeCycleRow,
  transition,
} from './life-cycle.ts';
export { type FrontendLog, silentLog } from './log.ts';
export type { BackendLocation, Observation } from './observation.ts';
export type { FrontendEnd, FrontendEvents, FrontendOptions } from './options.ts';
export { selectVbd } from './select-vbd.ts';
export { DEFAULT_TIMEOUTS, type FrontendTimeouts } from './timeouts.ts';
export {
  chooseTransport,
  shrinkTransport,
  type TransportChoice,
  type TransportWish,
} from './transport-choice.ts';
export {
  describeVbd,
  type HolderOf,
  listVbds,
  type VbdDescription,
  watchVbds,
} from './vbd.ts';
