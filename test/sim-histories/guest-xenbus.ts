/**
 * /dev/xen/xenbus of a guest that can be paused, saved and restored: what the kernel keeps for a
 * process while the XenStore behind it becomes another one (drivers/xen/xenbus/xenbus_xs.c and
 * xenbus_dev_frontend.c of Linux). Watches are set again and fire; a transaction that was open gets
 * ENOENT for its requests and EAGAIN for its end; nothing is in flight while the guest is saved.
 */

import type { Transport, TransportHandlers } from 'xenstore-client';
import { decodePacket, encodeReply, XsType } from 'xenstore-client/wire';
import { StoreDevice } from '../../src/sim/store-transport.ts';
import type { Xenstored } from '../../src/sim/xenstored.ts';

/** Request ids of the kernel's own; those of a client count up from 1. */
const KERNEL_REQ_ID = 0xf000_0000;

export class GuestXenbus implements Transport {
  readonly #server: Xenstored;
  #device: StoreDevice;
  #handlers: TransportHandlers | undefined;
  /** What the process has asked and was not told yet, by request id. */
  readonly #open = new Set<number>();
  /** The process's watches, as the packets that set them. */
  readonly #watches = new Map<string, Uint8Array>();
  /** Transactions of the XenStore behind us, and of one before it. */
  readonly #transactions = new Set<number>();
  readonly #dead = new Set<number>();
  readonly #unsent: Uint8Array[] = [];
  readonly #undelivered: Uint8Array[] = [];
  #isPaused = false;
  #isSaving = false;
  #isClosed = false;

  constructor(server: Xenstored, domid: number) {
    this.#server = server;
    this.#device = this.#connect(domid);
  }

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  send(packet: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#isSaving) this.#unsent.push(packet.slice());
    else this.#forward(packet);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#device.close();
    queueMicrotask(() => this.#handlers?.onClose());
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  // --- the guest

  /** Takes no more requests. {@link isQuiet} tells when those under way are answered. */
  prepareToSave(): void {
    this.#isSaving = true;
  }

  get isQuiet(): boolean {
    return this.#open.size === 0;
  }

  /** The guest does not run: nothing is delivered. */
  pause(): void {
    this.#isPaused = true;
  }

  /** The guest runs again as it was. */
  resume(): void {
    this.#isPaused = false;
    this.#isSaving = false;
    for (const bytes of this.#undelivered.splice(0)) this.#deliver(bytes);
    for (const packet of this.#unsent.splice(0)) this.#forward(packet);
  }

  /** The guest runs again as another domain, on a XenStore that knows nothing of the process. */
  restore(domid: number): void {
    if (this.#isClosed) return;
    this.#device.close();
    this.#device = this.#connect(domid);
    for (const txId of this.#transactions) this.#dead.add(txId);
    this.#transactions.clear();
    let kernelId = KERNEL_REQ_ID;
    for (const packet of this.#watches.values()) {
      const again = packet.slice();
      new DataView(again.buffer).setUint32(4, kernelId++, true);
      this.#device.send(again);
    }
    this.resume();
  }

  #connect(domid: number): StoreDevice {
    const device = new StoreDevice(this.#server, domid);
    device.start({
      onData: (bytes) => {
        if (device === this.#device) this.#receive(bytes);
      },
      onClose: () => undefined,
    });
    return device;
  }

  #forward(packet: Uint8Array): void {
    const { type, reqId, txId, payload } = decodePacket(packet);
    if (txId !== 0 && this.#dead.has(txId)) {
      this.#answerDead(type, reqId, txId, payload[0] === 0x54);
      return;
    }
    if (type === XsType.WATCH) this.#watches.set(keyOf(payload), packet.slice());
    if (type === XsType.UNWATCH) this.#watches.delete(keyOf(payload));
    if (type === XsType.TRANSACTION_END) this.#transactions.delete(txId);
    this.#open.add(reqId);
    this.#device.send(packet);
  }

  /** A request of a transaction that was open when the guest was saved. */
  #answerDead(type: number, reqId: number, txId: number, isCommit: boolean): void {
    const isEnd = type === XsType.TRANSACTION_END;
    if (isEnd) this.#dead.delete(txId);
    const reply =
      isEnd && !isCommit
        ? encodeReply({ type: XsType.TRANSACTION_END }, reqId, txId)
        : encodeReply({ type: XsType.ERROR, name: isEnd ? 'EAGAIN' : 'ENOENT' }, reqId, txId);
    this.#server.schedule(() => this.#deliver(reply));
  }

  #receive(bytes: Uint8Array): void {
    const { type, reqId, payload } = decodePacket(bytes);
    if (type !== XsType.WATCH_EVENT) {
      if (reqId >= KERNEL_REQ_ID) return;
      this.#open.delete(reqId);
      if (type === XsType.TRANSACTION_START) {
        this.#transactions.add(Number.parseInt(Buffer.from(payload).toString('latin1'), 10));
      }
    }
    this.#deliver(bytes);
  }

  #deliver(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    if (this.#isPaused) this.#undelivered.push(bytes.slice());
    else this.#handlers?.onData(bytes);
  }
}

function keyOf(payload: Uint8Array): string {
  return Buffer.from(payload).toString('latin1');
}
