/**
 * The doorbell between two lanes of this process, in the place of an event channel: an eventfd for
 * each direction. It is level-triggered, so a mask is not needed: what came is there until taken.
 */

import type { EventChannel, EventChannelHandle } from '../host/index.ts';
import { drainEventFd, signalEventFd } from '../sys/index.ts';

/** What names this module in handles. */
const MODULE_URL = import.meta.url;

/** The handle of one end, for a lane that waits on `ownFd` and rings `peerFd`. */
export function privateChannel(ownFd: number, peerFd: number): EventChannelHandle {
  return { port: -1, fd: ownFd, moduleUrl: MODULE_URL, detail: { peerFd } };
}

/** Whether a handle is of this kind. */
export function isPrivateChannel({ moduleUrl }: EventChannelHandle): boolean {
  return moduleUrl === MODULE_URL;
}

/** Opens the end that a handle names. */
export function openPrivateChannel({ fd, detail }: EventChannelHandle): EventChannel {
  const { peerFd } = detail;
  if (peerFd === undefined) throw new TypeError('This is not a channel between two lanes.');
  return {
    fd,
    notify: () => signalEventFd(peerFd),
    consume: () => drainEventFd(fd),
    unmask: () => undefined,
  };
}
