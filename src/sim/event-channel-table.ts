/**
 * The event channels of the simulated hypervisor: allocates, binds and closes them. Lives in the
 * main thread; the ends are used from any thread through event-channel.ts.
 *
 * Ports are per domain, as in Xen. A channel keeps both of its descriptors until both ends are
 * closed: an end that still rings must never write into a descriptor that was closed and given to
 * somebody else.
 */

import { type EventChannelHandle, HostError } from '../host/index.ts';
import {
  allocateMemory,
  closeFd,
  createEventFd,
  drainEventFd,
  type Memory,
  signalEventFd,
} from '../sys/index.ts';
import { PENDING, STATE_BYTES, UNBOUND } from './event-channel.ts';

/** Ports below this are taken by a guest's kernel for its console, XenStore and timers. */
const FIRST_PORT = 8;
/** Fewer than the 4096 of a 64-bit guest, since each takes two descriptors of this process. */
const MAX_CHANNELS = 1024;
/** Words from one end's state to the next. */
const STATE_WORDS = STATE_BYTES / 4;

const moduleUrl = new URL(
  import.meta.url.endsWith('.ts') ? './event-channel.ts' : './event-channel.js',
  import.meta.url,
).href;

interface Channel {
  readonly slot: number;
  readonly domid: number;
  readonly port: number;
  readonly remoteDomid: number;
  readonly fd: number;
  readonly remoteFd: number;
  remotePort: number | undefined;
  isOpen: boolean;
  /** The guest was restored since it was bound: it leads nowhere and must not be closed. */
  isStale: boolean;
}

export class EventChannelTable {
  // Never unmapped: a thread that rings late must find a word, and it is little memory.
  readonly #memory: Memory = allocateMemory(MAX_CHANNELS * 2 * STATE_BYTES);
  readonly #states = new Int32Array(this.#memory.buffer);
  /** Channels by slot; a slot is given out again when both ends are closed. */
  readonly #channels: (Channel | undefined)[] = [];
  readonly #nextPorts = new Map<number, number>();
  #kernelBugs = 0;

  /** EVTCHNOP_alloc_unbound: a port of `domid` that only `remoteDomid` may bind to. */
  bindUnbound(domid: number, remoteDomid: number): EventChannelHandle {
    let slot = this.#channels.indexOf(undefined);
    if (slot < 0) slot = this.#channels.length;
    if (slot >= MAX_CHANNELS) {
      throw new HostError(
        'LIMIT',
        `All ${MAX_CHANNELS} event channels of the simulated Xen host are in use; ` +
          'close connections first.',
      );
    }
    const channel: Channel = {
      slot,
      domid,
      port: this.#takePort(domid),
      remoteDomid,
      fd: createEventFd(),
      remoteFd: createEventFd(),
      remotePort: undefined,
      isOpen: true,
      isStale: false,
    };
    this.#channels[slot] = channel;
    Atomics.store(this.#states, wordOf(slot, 0), 0);
    Atomics.store(this.#states, wordOf(slot, 1), UNBOUND);
    return this.#handle(channel, 0);
  }

  /**
   * EVTCHNOP_bind_interdomain: the other end of an unbound port. Undefined when there is no such
   * port, it is not meant for `domid`, or it is bound.
   */
  bindInterdomain(
    domid: number,
    remoteDomid: number,
    remotePort: number,
  ): EventChannelHandle | undefined {
    const channel = this.#channels.find(
      (one) =>
        one?.isOpen === true &&
        one.domid === remoteDomid &&
        one.port === remotePort &&
        one.remoteDomid === domid &&
        one.remotePort === undefined,
    );
    if (channel === undefined) return undefined;
    channel.remotePort = this.#takePort(domid);
    // Events sent before the bind may have been lost, so Xen always starts with one pending. The
    // signal is ours to send: no sender can have seen the end deliverable before this store.
    const handle = this.#handle(channel, 1);
    Atomics.store(this.#states, wordOf(channel.slot, 1), PENDING);
    signalEventFd(handle.fd);
    return handle;
  }

  /** EVTCHNOP_close for the end a handle stands for. The thread that used it must have stopped. */
  unbind(handle: EventChannelHandle): void {
    for (const channel of this.#channels) {
      if (channel === undefined) continue;
      if (channel.isOpen && channel.fd === handle.fd) {
        if (channel.isStale) {
          this.#kernelBugs += 1;
          throw new HostError(
            'FAILED',
            `kernel BUG at drivers/xen/evtchn.c: port ${handle.port} is from before a restore of ` +
              'this guest; its descriptor must be kept open for ever.',
          );
        }
        channel.isOpen = false;
        Atomics.or(this.#states, wordOf(channel.slot, 0), UNBOUND);
        this.#release(channel);
        return;
      }
      if (channel.remotePort !== undefined && channel.remoteFd === handle.fd) {
        channel.remotePort = undefined;
        // The port is unbound again and may be bound anew, as after a restart of the back end.
        Atomics.store(this.#states, wordOf(channel.slot, 1), UNBOUND);
        drainEventFd(channel.remoteFd);
        this.#release(channel);
        return;
      }
    }
    throw new HostError('FAILED', `Port ${handle.port} is not bound; was it unbound before?`);
  }

  /** The guest `domid` was restored: its channels are dead, and closing one is a kernel BUG. */
  makeStale(domid: number): void {
    for (const channel of this.#channels) {
      if (channel?.domid !== domid || !channel.isOpen) continue;
      channel.isStale = true;
      Atomics.or(this.#states, wordOf(channel.slot, 0), UNBOUND);
      Atomics.or(this.#states, wordOf(channel.slot, 1), UNBOUND);
    }
  }

  /** Channels with an end that is still open, but for those that a restore has killed. */
  get openCount(): number {
    return this.#channels.filter((channel) => channel !== undefined && !channel.isStale).length;
  }

  /** How often a dead channel was closed: a kernel would have stopped at the first. */
  get kernelBugs(): number {
    return this.#kernelBugs;
  }

  /** Closes every descriptor. All threads that used a channel must have stopped. */
  close(): void {
    for (const channel of this.#channels) {
      if (channel !== undefined) closeBoth(channel);
    }
    this.#channels.length = 0;
  }

  #takePort(domid: number): number {
    const port = this.#nextPorts.get(domid) ?? FIRST_PORT;
    this.#nextPorts.set(domid, port + 1);
    return port;
  }

  #release(channel: Channel): void {
    if (channel.isOpen || channel.remotePort !== undefined) return;
    closeBoth(channel);
    this.#channels[channel.slot] = undefined;
  }

  #handle(channel: Channel, end: 0 | 1): EventChannelHandle {
    const stateAddress = this.#memory.address + wordOf(channel.slot, end) * 4;
    const peerStateAddress = this.#memory.address + wordOf(channel.slot, end === 0 ? 1 : 0) * 4;
    const { fd, remoteFd, port, remotePort } = channel;
    return end === 0
      ? { port, fd, moduleUrl, detail: { stateAddress, peerStateAddress, peerFd: remoteFd } }
      : {
          port: remotePort ?? 0,
          fd: remoteFd,
          moduleUrl,
          detail: { stateAddress, peerStateAddress, peerFd: fd },
        };
  }
}

/** Index of the state word of one end: 0 is the one that was allocated, 1 the one that bound. */
function wordOf(slot: number, end: 0 | 1): number {
  return (slot * 2 + end) * STATE_WORDS;
}

function closeBoth(channel: Channel): void {
  closeFd(channel.fd);
  closeFd(channel.remoteFd);
}
