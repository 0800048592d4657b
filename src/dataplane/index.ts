export { type CloseReason, FAULTS_OF_CLIENTS } from './close-reason.ts';
export {
  Counter,
  Counters,
  LATENCY_COMMANDS,
  type LatencyCommand,
} from './counters.ts';
export type { GuestList, GuestRing } from './guest-rings.ts';
export { type AdoptedClient, Lane, type LaneHandlers } from './lane.ts';
export {
  type DiskShape,
  type GrantedMemory,
  type LaneConfig,
  type LaneLimits,
  type LaneRing,
  RECEIVE_BUFFER_BYTES,
  SEND_BUFFER_BYTES,
} from './lane-config.ts';
export {
  createSharedContexts,
  LANE_CONTEXT_NAMES,
  LaneContexts,
  type SharedContexts,
} from './lane-contexts.ts';
export { LATENCY_BUCKETS, latencyBucket, latencyFloorUs, latencyPercentileUs } from './latency.ts';
export type { LaneEvent } from './messages.ts';
export { privateChannel } from './private-channel.ts';
export { createSharedRanges, type SharedRanges } from './range-lock.ts';
export { TRACE_FIELDS, TraceField, TraceRing } from './trace-ring.ts';
