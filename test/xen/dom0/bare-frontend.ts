/**
 * The smallest frontend that can do I/O: one queue, a one-page ring, one request at a time. It
 * proves the real host (src/xen) and the ring code against the kernel's xen-blkback before anything
 * larger is trusted, and looks at what blkback answers to odd requests.
 */
import { strictEqual } from 'node:assert/strict';
import { XenStoreClient } from 'xenstore-client';
import {
  BlkifAbi,
  BlkifOp,
  blkifLayout,
  createResponse,
  createRingArea,
  decodeResponse,
  encodeDirectRequest,
  encodeFlush,
  encodeFrontendKeys,
  encodeSegment,
  FrontRing,
  isConnectionKey,
  segmentOffset,
} from '../../../src/blkif/index.ts';
import type {
  EventChannel,
  EventChannelHandle,
  EventChannelModule,
  GrantedPages,
  XenHost,
} from '../../../src/host/index.ts';
import { EPOLLIN, Epoll, PAGE_SIZE, viewMemory } from '../../../src/sys/index.ts';
import type { Vbd } from './vbd-fixture.ts';

const SECTORS_PER_PAGE = 8;
const ANSWER_TIMEOUT_MS = 60_000;
const STATE_TIMEOUT_MS = 60_000;
const layout = blkifLayout(BlkifAbi.X86_64);

export class BareFrontend {
  readonly store: XenStoreClient;
  readonly #vbd: Vbd;
  readonly #host: XenHost;
  readonly #ringPages: GrantedPages;
  readonly #dataPages: GrantedPages;
  readonly #channelHandle: EventChannelHandle;
  readonly #channel: EventChannel;
  readonly #ring: FrontRing;
  readonly #epoll = new Epoll(1);
  readonly #response = createResponse();
  /** The data pages, for the caller to fill and to look at. */
  readonly data: Uint8Array;
  #nextId = 1;

  private constructor(parts: {
    store: XenStoreClient;
    vbd: Vbd;
    host: XenHost;
    channelHandle: EventChannelHandle;
    channel: EventChannel;
  }) {
    this.store = parts.store;
    this.#vbd = parts.vbd;
    this.#host = parts.host;
    this.#channelHandle = parts.channelHandle;
    this.#channel = parts.channel;
    this.#ringPages = parts.host.grantPages(0, 1, 'read-write');
    this.#dataPages = parts.host.grantPages(0, 11, 'read-write');
    this.data = new Uint8Array(viewMemory(this.#dataPages.address, 11 * PAGE_SIZE));
    const buffer = viewMemory(this.#ringPages.address, PAGE_SIZE);
    const placement = { buffer, offsetBytes: 0, ringPageCount: 1, abi: BlkifAbi.X86_64 };
    this.#ring = FrontRing.initialise(createRingArea(placement));
    this.#epoll.add(this.#channel.fd, EPOLLIN, 0);
  }

  /** From states 1/2 to 4/4. */
  static async connect(host: XenHost, vbd: Vbd): Promise<BareFrontend> {
    const store = new XenStoreClient(await host.openXenStore());
    const channelHandle = host.bindEventChannel(0);
    const module = (await import(channelHandle.moduleUrl)) as EventChannelModule;
    const channel = module.openEventChannel(channelHandle);
    const frontend = new BareFrontend({ store, vbd, host, channelHandle, channel });
    await frontend.#handshake();
    return frontend;
  }

  /** Status of the answer to a read or write of whole pages, from the first data page on. */
  transfer(operation: 0 | 1, firstSector: number, pageCount: number): number {
    return this.request((at, id) => {
      const view = this.#ring.view;
      encodeDirectRequest(view, at, layout, operation, this.#handle, id, firstSector, pageCount);
      for (let page = 0; page < pageCount; page++) {
        const gref = this.#dataPages.grefs[page] ?? 0;
        encodeSegment(view, segmentOffset(at, layout, page), gref, 0, SECTORS_PER_PAGE - 1);
      }
    });
  }

  read(firstSector: number, pageCount: number): number {
    return this.transfer(BlkifOp.BLKIF_OP_READ, firstSector, pageCount);
  }

  write(firstSector: number, pageCount: number): number {
    return this.transfer(BlkifOp.BLKIF_OP_WRITE, firstSector, pageCount);
  }

  flush(): number {
    return this.request((at, id) => encodeFlush(this.#ring.view, at, layout, this.#handle, id));
  }

  /** Sends what `fill` writes at the slot, waits for the answer by the event channel. */
  request(fill: (at: number, id: number) => void): number {
    const id = this.#nextId++;
    fill(this.#ring.reserveSlot(), id);
    if (this.#ring.publish()) this.#channel.notify();
    while (this.#ring.pendingResponses() === 0) {
      if (this.#ring.finalCheck()) continue;
      strictEqual(this.#epoll.wait(ANSWER_TIMEOUT_MS), 1, 'the backend rang in time');
      strictEqual(this.#channel.consume(), true);
      // Masked now: whatever comes before this is kept and delivered.
      this.#channel.unmask();
    }
    strictEqual(this.#ring.pendingResponses(), 1);
    decodeResponse(this.#ring.view, this.#ring.responseOffset(0), this.#response);
    this.#ring.consume(1);
    strictEqual(this.#response.id, id);
    return this.#response.status;
  }

  /** To 6/6, with everything given back. */
  async close(): Promise<void> {
    await this.#writeState('5');
    await this.#waitForBackend('5', '6');
    await this.#writeState('6');
    await this.#waitForBackend('6');
    this.#epoll.close();
    this.#host.unbindEventChannel(this.#channelHandle);
    this.#ringPages.revoke();
    this.#dataPages.revoke();
    await this.store.close();
  }

  get #handle(): number {
    return this.#vbd.id & 0xffff;
  }

  async #handshake(): Promise<void> {
    const front = this.#vbd.frontendPath;
    for (const name of await this.store.directory(front)) {
      if (isConnectionKey(name)) await this.store.rm(`${front}/${name}`);
    }
    const queues = [{ ringGrefs: this.#ringPages.grefs, port: this.#channelHandle.port }];
    const offer = { abi: BlkifAbi.X86_64, isPersistent: false, queues };
    await this.store.transaction(async (transaction) => {
      for (const [key, value] of encodeFrontendKeys(offer)) {
        await transaction.write(`${front}/${key}`, value);
      }
      await transaction.write(`${front}/state`, '3');
    });
    await this.#waitForBackend('4');
    await this.#writeState('4');
  }

  async #writeState(state: string): Promise<void> {
    await this.store.write(`${this.#vbd.frontendPath}/state`, state);
  }

  async #waitForBackend(...states: string[]): Promise<void> {
    const path = `${this.#vbd.backendPath}/state`;
    const isExpected = (value: string | undefined): boolean => states.includes(value ?? '');
    await this.store.waitFor(path, isExpected, { timeoutMs: STATE_TIMEOUT_MS });
  }
}
