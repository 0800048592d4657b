/**
 * Rings within this process for lanes that the backend has given none: each such lane is the guest
 * of one that has, in turn. They last as long as the connection to the backend.
 */

import { type BlkifAbi, createRingArea, FrontRing } from '../blkif/index.ts';
import {
  type GuestList,
  type GuestRing,
  type LaneRing,
  privateChannel,
} from '../dataplane/index.ts';
import { allocateMemory, closeFd, createEventFd, PAGE_SIZE, unmapMemory } from '../sys/index.ts';

/** Where a ring in this process is, and how it is rung. */
export type RingPlace = Pick<LaneRing, 'address' | 'pageCount' | 'eventChannel'>;

export class SharedQueues {
  readonly #queueCount: number;
  readonly #rings: GuestRing[] = [];
  readonly #hostFds: number[] = [];

  /** For lanes from number `queueCount` on: those before have rings of their own. */
  constructor(laneCount: number, queueCount: number, pageCount: number, abi: BlkifAbi) {
    this.#queueCount = queueCount;
    for (let guest = 0; guest < laneCount - queueCount; guest++) {
      const { address, buffer } = allocateMemory(pageCount * PAGE_SIZE);
      FrontRing.initialise(
        createRingArea({ buffer, offsetBytes: 0, ringPageCount: pageCount, abi }),
      );
      this.#rings.push({ address, pageCount, abi, guestFd: createEventFd() });
    }
    const hosts = Math.min(queueCount, this.#rings.length);
    for (let host = 0; host < hosts; host++) this.#hostFds.push(createEventFd());
  }

  /** The ring of a lane that is a guest; undefined for one that is none. */
  ringOf(laneIndex: number): RingPlace | undefined {
    const guest = laneIndex - this.#queueCount;
    const ring = this.#rings[guest];
    const hostFd = this.#hostFds[guest % this.#queueCount];
    if (ring === undefined || hostFd === undefined) return undefined;
    const { address, pageCount, guestFd } = ring;
    return { address, pageCount, eventChannel: privateChannel(guestFd, hostFd) };
  }

  /** The guests of a lane; undefined when it has none. */
  guestsOf(laneIndex: number): GuestList | undefined {
    const hostFd = this.#hostFds[laneIndex];
    if (hostFd === undefined) return undefined;
    const isOurs = (_ring: GuestRing, guest: number): boolean =>
      guest % this.#queueCount === laneIndex;
    return { hostFd, rings: this.#rings.filter(isOurs) };
  }

  /** No lane may touch them any more. */
  free(): void {
    for (const { address, pageCount, guestFd } of this.#rings.splice(0)) {
      unmapMemory(address, pageCount * PAGE_SIZE);
      closeFd(guestFd);
    }
    for (const hostFd of this.#hostFds.splice(0)) closeFd(hostFd);
  }
}
