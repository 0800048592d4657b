/**
 * A simulated Xen host: everything that a block front end needs of Xen, in one process, with the
 * real wire formats. Used by `--simulate` and by tests.
 */

export type { EngineStats } from './engine-stats.ts';
export type { SimulatedTimers } from './fault-schedule.ts';
export {
  NO_FAULTS,
  parseSimulatedFaults,
  parseSizeBytes,
  SeededRandom,
  type SimulatedFaults,
} from './faults.ts';
export {
  defaultFeatures,
  NO_FEATURES,
  parseSimulatedFeatures,
  type SimulatedFeatures,
  SimulationOptionError,
} from './features.ts';
export { DEFAULT_GRANT_LIMIT_PAGES } from './grants.ts';
export { ALL_RING_LIES, type Hostility, RingLie } from './hostile-answers.ts';
export type { RingService } from './ring-service.ts';
export type { ServingThread } from './ring-set.ts';
export type { LeakReport, SimulatedControl, SimulatedDisk } from './sim-control.ts';
export {
  createSimulatedHost,
  GUEST_DOMID,
  type SimulatedHost,
  type SimulatedHostOptions,
} from './sim-host.ts';
export { SteppedRings } from './stepped-rings.ts';
export type { Schedule, Xenstored } from './xenstored.ts';
