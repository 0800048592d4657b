/**
 * One end of a simulated event channel, for the thread that owns it. This is the module that
 * simulated handles name: it may be loaded by any thread, and finds everything by numbers.
 *
 * Each end has a state word in memory of the process and an eventfd. The word has the bits of Xen's
 * shared info page and of /dev/xen/evtchn:
 *
 *   PENDING   an event came and was not consumed
 *   MASKED    the owner consumed an event and has not unmasked: do not wake it
 *   UNBOUND   nobody owns this end: it was not bound yet, or was closed
 *
 * Invariant: whoever turns the word from "not (PENDING and deliverable)" into "PENDING and
 * deliverable", deliverable meaning neither MASKED nor UNBOUND, signals the eventfd afterwards,
 * once. So an event to an end that is awake, or has one waiting, costs no system call.
 *
 * Beside the state word stands the processor that the last signal came from: a hint and no more.
 */

import type { EventChannel, EventChannelHandle } from '../host/index.ts';
import { currentProcessor, drainEventFd, signalEventFd, viewMemory } from '../sys/index.ts';

export const PENDING = 1;
export const MASKED = 2;
export const UNBOUND = 4;

/** State words are this far apart, so that two ends do not share a cache line. */
export const STATE_BYTES = 64;

/** What the handle of a simulated channel carries besides its own descriptor. */
export interface SimulatedChannelDetail {
  readonly [name: string]: number;
  /** Address of this end's state word. */
  readonly stateAddress: number;
  /** Address of the other end's state word. */
  readonly peerStateAddress: number;
  /** The other end's eventfd. */
  readonly peerFd: number;
}

/** Opens the end that a handle names, in the calling thread. */
export function openEventChannel(handle: EventChannelHandle): SimulatedEventChannel {
  return new SimulatedEventChannel(handle);
}

export class SimulatedEventChannel implements EventChannel {
  readonly fd: number;
  // Plain fields, not #private: these methods run once per wake-up.
  private readonly state: Int32Array;
  private readonly peerState: Int32Array;
  private readonly peerFd: number;

  constructor(handle: EventChannelHandle) {
    const { stateAddress, peerStateAddress, peerFd } = handle.detail;
    if (stateAddress === undefined || peerStateAddress === undefined || peerFd === undefined) {
      throw new TypeError(`Port ${handle.port} is not of a simulated event channel.`);
    }
    this.fd = handle.fd;
    this.peerFd = peerFd;
    this.state = new Int32Array(viewMemory(stateAddress, 8));
    this.peerState = new Int32Array(viewMemory(peerStateAddress, 8));
  }

  /** Where the other end last signalled from; -1 when that is not known. */
  get signalProcessor(): number {
    return this.state[1] ?? -1;
  }

  notify(): void {
    // The or is also the barrier between what was written to the ring before and the event: an
    // owner that sees PENDING sees the ring. It must be one atomic step with the look at MASKED:
    // with a load and a later store, an unmask in between would find nothing pending and we would
    // have seen MASKED, so nobody would signal.
    if (Atomics.or(this.peerState, 0, PENDING) === 0) {
      this.peerState[1] = currentProcessor();
      signalEventFd(this.peerFd);
    }
  }

  consume(): boolean {
    // The drain comes first. The other way round, an event that comes between the look at the word
    // and the drain would lose its signal: the word says PENDING, the descriptor is silent, and no
    // later event signals, because PENDING is already set.
    drainEventFd(this.fd);
    // A signal may be late: its event was consumed when the bit was set and before the signal. Then
    // nothing is pending here, or the end is masked already; either way the wake-up meant nothing.
    // Only the exact value PENDING is taken: a pending bit under MASKED belongs to unmask.
    return Atomics.compareExchange(this.state, 0, PENDING, MASKED) === PENDING;
  }

  /**
   * Forgets an event that waits for {@link unmask}. For an owner that is about to look at the ring
   * anyway: what the event announced was written before it, so the look finds it. An event that
   * comes after this call is not forgotten, and what it announces may be missed by the look.
   */
  discardPending(): void {
    // Only under the mask: without it, PENDING promises a signal that is on its way, and clearing
    // it would let a second sender signal as well.
    Atomics.compareExchange(this.state, 0, PENDING | MASKED, MASKED);
  }

  unmask(): void {
    // One atomic step, so that each event is either before it, and seen here, or after it, and its
    // sender sees the end unmasked. Two steps would let one fall between and wake nobody.
    const before = Atomics.and(this.state, 0, ~MASKED);
    // An end that was not masked was signalled by the sender of its event.
    if (before === (PENDING | MASKED)) {
      signalEventFd(this.fd);
    }
  }
}
