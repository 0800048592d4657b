export { Counter, Counters } from './counters.ts';
export { type AdoptedClient, Lane, type LaneHandlers } from './lane.ts';
export type {
  DiskShape,
  GrantedMemory,
  LaneConfig,
  LaneLimits,
  LaneRing,
} from './lane-config.ts';
export type { LaneEvent } from './messages.ts';
export type { CloseReason } from './nbd-connection.ts';
export { createSharedRanges, type SharedRanges } from './range-lock.ts';
