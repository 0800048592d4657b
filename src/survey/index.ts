/** What this guest has and lacks, for `list`, `info` and `doctor`. Looks, and changes nothing. */

export { type Check, formatChecks } from './check.ts';
export type { RunProgram } from './check-service.ts';
export {
  type DoctorChoice,
  type DoctorWorld,
  examine,
  summarise,
  thisWorld,
} from './doctor.ts';
export { describeDriver, type VbdDriver, VbdDrivers } from './drivers.ts';
export { type Guest, type GuestChoice, withGuest } from './guest.ts';
export { describeGuestVbd, formatInfo, type VbdInfo } from './info.ts';
export { formatList, type ListedVbd, listGuestVbds } from './list.ts';
export { type Machine, thisMachine } from './machine.ts';
