export { HostError, type HostErrorCode } from './errors.ts';
export type { EventChannel, EventChannelHandle, EventChannelModule } from './event-channel.ts';
export type { GrantAccess, GrantBudget, GrantedPages, VbdClaim, XenHost } from './xen-host.ts';
