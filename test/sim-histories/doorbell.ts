/**
 * What wakes a simulated lane by the ring: an event channel of the simulated host, or the doorbell
 * of another lane, whose eventfd is looked at without taking anything from it.
 */

import { isPrivateChannel, openPrivateChannel } from '../../src/dataplane/private-channel.ts';
import type { EventChannel, EventChannelHandle } from '../../src/host/index.ts';
import { openEventChannel } from '../../src/sim/event-channel.ts';
import { allocateMemory, libc } from '../../src/sys/index.ts';
import { isSignalled, stateOf } from './stepped-rings.ts';

const POLLIN = 1;
const memory = allocateMemory(8);
const question = new DataView(memory.buffer);

/** Whether somebody has signalled an eventfd. */
export function isReadable(fd: number): boolean {
  question.setInt32(0, fd, true);
  question.setInt16(4, POLLIN, true);
  return libc.poll(memory.address, 1, 0) > 0;
}

/** A channel, and whether an event waits in it. */
export interface Doorbell {
  readonly channel: EventChannel;
  readonly isRung: () => boolean;
}

/** Opens the channel that a handle names. */
export function openDoorbell(handle: EventChannelHandle): Doorbell {
  if (isPrivateChannel(handle)) {
    return { channel: openPrivateChannel(handle), isRung: () => isReadable(handle.fd) };
  }
  const state = stateOf(handle);
  return { channel: openEventChannel(handle), isRung: () => isSignalled(state) };
}
