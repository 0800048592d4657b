/**
 * A block front end written by hand for the tests of the simulated back end: it writes requests and
 * reads responses byte by byte at the offsets of xen/include/public/io/blkif.h (x86_64), and knows
 * nothing of src/blkif, so that a mistake there cannot hide itself.
 */

import { XenStoreClient } from 'xenstore-client';
import type { EventChannel, EventChannelHandle, GrantedPages } from '../../src/host/index.ts';
import type { SimulatedHost } from '../../src/sim/index.ts';
import { viewMemory } from '../../src/sys/index.ts';

const REQ_PROD = 0;
const REQ_EVENT = 1;
const RSP_PROD = 2;
const RSP_EVENT = 3;
const SLOTS = 32;
const SLOT_BYTES = 112;

export interface HandResponse {
  readonly id: number;
  readonly operation: number;
  readonly status: number;
}

export interface HandSegment {
  readonly gref: number;
  readonly first: number;
  readonly last: number;
}

/** Memory of a grant as bytes. */
export function bytesOf(pages: GrantedPages): Uint8Array {
  return new Uint8Array(viewMemory(pages.address, pages.pageCount * 4096));
}

/** A one-page ring, filled by hand. */
export class HandRing {
  readonly words: Uint32Array;
  readonly view: DataView;
  requests = 0;
  responses = 0;

  constructor(buffer: ArrayBuffer) {
    this.words = new Uint32Array(buffer, 0, 16);
    this.view = new DataView(buffer);
    this.words[REQ_EVENT] = 1;
    this.words[RSP_EVENT] = 1;
  }

  /** Starts a request: operation, second byte, handle 0, id. Returns the slot's offset. */
  put(operation: number, second: number, id: number, sector: number): number {
    const at = 64 + (this.requests % SLOTS) * SLOT_BYTES;
    for (let byte = 0; byte < SLOT_BYTES; byte++) this.view.setUint8(at + byte, 0);
    this.view.setUint8(at, operation);
    this.view.setUint8(at + 1, second);
    this.view.setUint32(at + 8, id, true);
    this.view.setUint32(at + 16, sector >>> 0, true);
    this.view.setUint32(at + 20, Math.floor(sector / 2 ** 32), true);
    this.requests += 1;
    return at;
  }

  putSegments(at: number, segments: readonly HandSegment[]): void {
    for (const [index, segment] of segments.entries()) {
      this.view.setUint32(at + 24 + index * 8, segment.gref, true);
      this.view.setUint8(at + 28 + index * 8, segment.first);
      this.view.setUint8(at + 29 + index * 8, segment.last);
    }
  }

  putDirect(operation: number, id: number, sector: number, segments: readonly HandSegment[]): void {
    this.putSegments(this.put(operation, segments.length, id, sector), segments);
  }

  push(): void {
    Atomics.store(this.words, REQ_PROD, this.requests);
  }

  /** Takes the responses that are there. */
  take(): HandResponse[] {
    const taken: HandResponse[] = [];
    const producer = Atomics.load(this.words, RSP_PROD);
    for (; this.responses !== producer; this.responses++) {
      const at = 64 + (this.responses % SLOTS) * SLOT_BYTES;
      taken.push({
        id: this.view.getUint32(at, true),
        operation: this.view.getUint8(at + 8),
        status: this.view.getInt16(at + 10, true),
      });
    }
    Atomics.store(this.words, RSP_EVENT, this.responses + 1);
    return taken;
  }
}

/** A ring in granted memory, with its event channel. */
export class HandFront extends HandRing {
  readonly pages: GrantedPages;
  readonly handle: EventChannelHandle;
  channel: EventChannel | undefined;

  constructor(host: SimulatedHost) {
    const pages = host.grantPages(0, 1, 'read-write');
    super(viewMemory(pages.address, 4096));
    this.pages = pages;
    this.handle = host.bindEventChannel(0);
  }

  /** Opens the event channel as a lane does: through the module that the handle names. */
  async open(): Promise<void> {
    const module = (await import(this.handle.moduleUrl)) as {
      openEventChannel(handle: EventChannelHandle): EventChannel;
    };
    this.channel = module.openEventChannel(this.handle);
  }

  override push(): void {
    super.push();
    this.channel?.notify();
  }

  /** Waits for `count` responses, with an eye on the event channel's descriptor. */
  async wait(count: number): Promise<HandResponse[]> {
    const taken: HandResponse[] = [];
    for (let turn = 0; taken.length < count; turn++) {
      if (turn > 5000) throw new Error(`${taken.length} of ${count} responses came`);
      taken.push(...this.take());
      this.channel?.consume();
      this.channel?.unmask();
      await new Promise((resolve) => setTimeout(resolve, taken.length < count ? 1 : 0));
    }
    return taken;
  }
}

/** Does the handshake of a front end by hand, over the wire. */
export async function connectByHand(
  host: SimulatedHost,
  vbdId: number,
  extraKeys: Readonly<Record<string, string>> = {},
): Promise<{ store: XenStoreClient; front: HandFront; backend: string }> {
  const store = new XenStoreClient(await host.openXenStore());
  const home = `device/vbd/${vbdId}`;
  const backend = await store.read(`${home}/backend`);
  const front = new HandFront(host);
  await store.waitFor(`${backend}/state`, (state) => state === '2', { timeoutMs: 30_000 });
  await store.transaction(async (transaction) => {
    await transaction.write(`${home}/ring-ref`, String(front.pages.grefs[0]));
    await transaction.write(`${home}/event-channel`, String(front.handle.port));
    await transaction.write(`${home}/protocol`, 'x86_64-abi');
    for (const [key, value] of Object.entries(extraKeys)) {
      await transaction.write(`${home}/${key}`, value);
    }
    await transaction.write(`${home}/state`, '3');
  });
  await store.waitFor(`${backend}/state`, (state) => state === '4', { timeoutMs: 30_000 });
  await store.write(`${home}/state`, '4');
  await front.open();
  return { store, front, backend };
}
