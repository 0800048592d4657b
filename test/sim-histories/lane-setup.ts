/** What a simulated lane is made of and told, and the memory that all of them use in turn. */

import type { GuestList } from '../../src/dataplane/guest-rings.ts';
import { Iovec } from '../../src/dataplane/iovec.ts';
import type {
  DiskShape,
  GrantedMemory,
  LaneLimits,
  LaneRing,
} from '../../src/dataplane/lane-config.ts';
import type { SharedContexts } from '../../src/dataplane/lane-contexts.ts';
import type { LaneCore } from '../../src/dataplane/lane-core.ts';
import type { SharedRanges } from '../../src/dataplane/range-lock.ts';
import { ReceiveBuffers } from '../../src/dataplane/receive-buffers.ts';
import { HEADER_SLOT_BYTES } from '../../src/dataplane/reply-header.ts';
import { allocateMemory } from '../../src/sys/index.ts';
import type { NbdRequester } from './nbd-requester.ts';
import type { Scheduler } from './scheduler.ts';

/** Memory that is never given back is shared by all histories; only one runs at a time. */
const OPERATIONS_MAX = 64;
const LANES_MAX = 4;
export const sharedIovec: Iovec = new Iovec();
const headerAreas: readonly LaneCore['headers'][] = Array.from({ length: LANES_MAX }, () => {
  const memory = allocateMemory(OPERATIONS_MAX * HEADER_SLOT_BYTES);
  return { ...memory, view: new DataView(memory.buffer) };
});
const bufferSizes = new Map<number, ReceiveBuffers>();

/** Buffers of a size, used by one history after another. */
export function receiveBuffers(lengthBytes: number): ReceiveBuffers {
  let buffers = bufferSizes.get(lengthBytes);
  if (buffers === undefined) {
    buffers = new ReceiveBuffers(lengthBytes);
    bufferSizes.set(lengthBytes, buffers);
  }
  return buffers;
}

/** Room for the reply headers of lane `index`. */
export function headerArea(index: number): LaneCore['headers'] {
  const area = headerAreas[index];
  if (area === undefined) throw new RangeError(`There is no memory for lane ${index}.`);
  return area;
}

/** The granted pages of a lane. */
export interface LaneMemory {
  readonly pool: GrantedMemory;
  readonly zeroPool: GrantedMemory;
  readonly indirectPool: GrantedMemory | undefined;
}

export interface SimulatedLaneConfig {
  readonly index: number;
  readonly scheduler: Scheduler;
  readonly disk: DiskShape;
  readonly ring: LaneRing;
  readonly memory: LaneMemory;
  readonly limits: LaneLimits;
  readonly ranges: SharedRanges;
  readonly contexts: SharedContexts;
  readonly receiveBufferBytes: number;
  /** The other end of the ring may have to wake. */
  readonly notified: () => void;
  readonly broken: (fault: string) => void;
}

/** An order of the main thread, and what to do when it was carried out. */
export type Order =
  | { readonly type: 'adopt'; readonly client: NbdRequester }
  | { readonly type: 'drain'; readonly done: (errno: number) => void }
  | { readonly type: 'break-down' }
  | { readonly type: 'hold' | 'suspend' | 'evacuate'; readonly done: () => void }
  | {
      readonly type: 'resume';
      readonly ring: LaneRing;
      readonly disk: DiskShape;
      readonly memory: LaneMemory | undefined;
      readonly guests: GuestList | undefined;
      readonly done: () => void;
    };
