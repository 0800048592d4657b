/**
 * What a connection holds of the host: granted ring pages and event channels. Made before the keys
 * are written, given back when the back end is known to be finished with them, and not before.
 */

import { type BlkifAbi, createRingArea, FrontRing, slotCount } from '../blkif/index.ts';
import { type EventChannelHandle, HostError, type XenHost } from '../host/index.ts';
import type { AttachedQueue } from './attachment.ts';
import { shrinkTransport, type TransportChoice } from './transport-choice.ts';

/** Gives the bytes of memory that the host granted, at an address in this process. */
export type ViewMemory = (address: number, lengthBytes: number) => ArrayBufferLike;

export class Connection {
  readonly backendId: number;
  /** What was really granted: smaller than asked for when the host's limit is near. */
  readonly transport: TransportChoice;
  readonly queues: readonly AttachedQueue[];
  readonly #host: XenHost;

  private constructor(
    host: XenHost,
    backendId: number,
    transport: TransportChoice,
    queues: readonly AttachedQueue[],
  ) {
    this.#host = host;
    this.backendId = backendId;
    this.transport = transport;
    this.queues = queues;
  }

  /**
   * Grants the rings of `wanted` to `backendId`, initialises their headers and binds a channel for
   * each. When the host's limit of pages does not allow that, a smaller transport is taken.
   *
   * @throws HostError when not even one ring of one page can be had.
   */
  static open(
    host: XenHost,
    backendId: number,
    abi: BlkifAbi,
    wanted: TransportChoice,
    viewMemory: ViewMemory,
  ): Connection {
    for (let transport = wanted; ; ) {
      const queues: AttachedQueue[] = [];
      try {
        while (queues.length < transport.queueCount) {
          queues.push(openQueue(host, backendId, abi, transport.ringPageOrder, viewMemory));
        }
        return new Connection(host, backendId, transport, queues);
      } catch (error) {
        // Nobody was told of these pages and channels yet.
        releaseQueues(host, queues);
        const smaller = shrinkTransport(transport);
        if (!(error instanceof HostError) || error.code !== 'LIMIT' || smaller === undefined) {
          throw error;
        }
        transport = smaller;
      }
    }
  }

  /**
   * Gives everything back. The back end must be finished, and no thread of ours may touch the rings
   * or channels any more.
   */
  release(): void {
    releaseQueues(this.#host, this.queues);
  }

  /**
   * Gives the pages back and returns the channels, which must stay open: after a restore the kernel
   * has forgotten their ports, and closing their descriptors is a BUG in it
   * (drivers/xen/evtchn.c, evtchn_release).
   */
  releaseAfterRestore(): EventChannelHandle[] {
    for (const { ring } of this.queues) {
      ring.revoke();
    }
    return this.queues.map(({ eventChannel }) => eventChannel);
  }
}

function openQueue(
  host: XenHost,
  backendId: number,
  abi: BlkifAbi,
  ringPageOrder: number,
  viewMemory: ViewMemory,
): AttachedQueue {
  const ringPageCount = 2 ** ringPageOrder;
  const ring = host.grantPages(backendId, ringPageCount, 'read-write');
  try {
    // Before the references are told: the back end reads the header as soon as it maps the ring.
    const buffer = viewMemory(ring.address, ringPageCount * 4096);
    FrontRing.initialise(createRingArea({ buffer, offsetBytes: 0, ringPageCount, abi }));
    const eventChannel = host.bindEventChannel(backendId);
    return { ring, ringPageOrder, slotCount: slotCount(ringPageCount, abi), eventChannel };
  } catch (error) {
    ring.revoke();
    throw error;
  }
}

function releaseQueues(host: XenHost, queues: readonly AttachedQueue[]): void {
  for (const { ring, eventChannel } of queues) {
    host.unbindEventChannel(eventChannel);
    ring.revoke();
  }
}
