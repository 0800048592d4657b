/**
 * XenStore through the kernel: /dev/xen/xenbus, drivers/xen/xenbus/xenbus_dev_frontend.c of Linux.
 *
 * What is special about it:
 * - Its buffer of 4096 bytes holds the header too, so that 4080 are left for the payload.
 * - Each message is one write(); a second message in the same write is silently lost.
 * - The next message is not written before the last one was answered. Linux queues the header of a
 *   message, but of its body only a pointer into the buffer of the open file, which the next
 *   write() fills anew (xenbus_dev_request_and_reply). Messages in flight together are mixed up:
 *   reads say ENOENT for nodes that exist, or bring the value of another, and writes would go to
 *   the wrong place. Seen on Linux 6.1, in 1 to 10 % of such requests.
 * - A write() that fails refuses that one message and forgets it; the connection goes on. This is
 *   how WATCH is refused: the kernel registers the watch itself, within the write.
 * - A write() of WATCH or UNWATCH returns when xenstored has answered the kernel, other writes at
 *   once. Writes are therefore made on the calling thread: they are over in a moment, and a
 *   thread of the pool would gain nothing but a disturbed order.
 * - Reads must never block; see readable-waiter.ts.
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import {
  isXsErrorName,
  XENSTORE_HEADER_SIZE,
  XENSTORE_PAYLOAD_MAX,
  type XsErrorName,
  XsType,
} from './constants.ts';
import { XenStoreConnectError, XenStoreError, XenStoreProtocolError } from './errors.ts';
import { meaningOf } from './failure.ts';
import { PacketFramer } from './framer.ts';
import { decodePacket, encodePacket } from './packet.ts';
import { PollingWaiter, type ReadableWaiter } from './readable-waiter.ts';
import { encodeReply } from './reply.ts';
import type { Transport, TransportHandlers } from './transport.ts';

/** Where the device is, in the order of trying. The second is xenfs, for old kernels. */
export const XENBUS_DEVICE_PATHS: readonly string[] = ['/dev/xen/xenbus', '/proc/xen/xenbus'];

/** Most bytes of payload that the device takes in one message. */
export const XENBUS_PAYLOAD_MAX: number = XENSTORE_PAYLOAD_MAX - XENSTORE_HEADER_SIZE;

const READ_BUFFER_BYTES = 16 * 1024;
/** Reads in a row before other work of the event loop gets its turn. */
const READS_PER_TURN = 16;

/** An open device, and how to wait for it. */
export interface DeviceTransportOptions {
  /** A descriptor of the device, opened for reading and writing with O_NONBLOCK. */
  readonly fd: number;
  /** Tells when to read. Default: {@link PollingWaiter}. */
  readonly waiter?: ReadableWaiter | undefined;
  /** Closes the descriptor. Default: fs.closeSync. */
  readonly closeFd?: ((fd: number) => void) | undefined;
}

/** A transport on an open device file, which it owns from now on. */
export class DeviceTransport implements Transport {
  readonly #fd: number;
  readonly #waiter: ReadableWaiter;
  readonly #closeFd: (fd: number) => void;
  readonly #buffer = new Uint8Array(READ_BUFFER_BYTES);
  readonly #framer = new PacketFramer();
  /** Messages that wait for the answer to the one before them. */
  readonly #queue: Uint8Array[] = [];
  #isAnswerDue = false;
  #handlers: TransportHandlers | undefined;
  #isClosed = false;

  constructor(options: DeviceTransportOptions) {
    this.#fd = options.fd;
    this.#waiter = options.waiter ?? new PollingWaiter();
    this.#closeFd = options.closeFd ?? closeSync;
  }

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
    this.#waiter.wait(this.#fd, this.#onReadable);
  }

  send(packet: Uint8Array): void {
    if (this.#isClosed) return;
    const payloadBytes = packet.length - XENSTORE_HEADER_SIZE;
    if (payloadBytes > XENBUS_PAYLOAD_MAX) {
      throw new XenStoreError(
        'E2BIG',
        `its ${payloadBytes} bytes are more than the ${XENBUS_PAYLOAD_MAX} that the kernel's ` +
          'xenbus device takes in one message.',
      );
    }
    if (this.#isAnswerDue || this.#queue.length > 0) this.#queue.push(packet);
    else this.#write(packet);
  }

  close(): void {
    this.#end(undefined);
  }

  /** @throws XenStoreError if the kernel refused this message and the connection goes on. */
  #write(packet: Uint8Array): void {
    try {
      this.#writeWhole(packet);
      this.#isAnswerDue = true;
      this.#waiter.expectSoon?.();
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException;
      if (isXsErrorName(code)) throw refusedByKernel(code, error);
      this.#end(error as Error);
    }
  }

  /** One message is one write; only if the kernel took a part of it does the rest follow. */
  #writeWhole(packet: Uint8Array): void {
    let written = 0;
    while (written < packet.length) {
      written += writeSync(this.#fd, packet, written, packet.length - written, null);
    }
  }

  /** Hands whole packets on; after an answer the next message may go. */
  #receive(chunk: Uint8Array): void {
    this.#framer.push(chunk);
    // A receiver may close the connection: then the rest must not reach it.
    while (!this.#isClosed) {
      const packet = this.#framer.next();
      if (packet === undefined) break;
      if (packet.type !== XsType.WATCH_EVENT) this.#isAnswerDue = false;
      this.#handlers?.onData(encodePacket(packet));
    }
    this.#writeQueued();
  }

  #writeQueued(): void {
    while (!this.#isClosed && !this.#isAnswerDue) {
      const packet = this.#queue.shift();
      if (packet === undefined) return;
      try {
        this.#write(packet);
      } catch (error) {
        if (!(error instanceof XenStoreError) || !isXsErrorName(error.code)) throw error;
        // send() has long returned: who sent it hears of the refusal as of one by xenstored.
        const { reqId, txId } = decodePacket(packet);
        const refusal = encodeReply({ type: XsType.ERROR, name: error.code }, reqId, txId);
        this.#handlers?.onData(refusal);
      }
    }
  }

  /** An arrow function, because the waiter keeps it: one for the life of the transport. */
  readonly #onReadable = (): void => {
    for (let reads = 0; reads < READS_PER_TURN && !this.#isClosed; reads += 1) {
      let lengthBytes: number;
      try {
        lengthBytes = readSync(this.#fd, this.#buffer, 0, this.#buffer.length, null);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EINTR') continue;
        if (code === 'EAGAIN') break;
        this.#end(error as NodeJS.ErrnoException);
        return;
      }
      if (lengthBytes === 0) {
        this.#end(new Error('the xenbus device was at its end'));
        return;
      }
      try {
        this.#receive(this.#buffer.subarray(0, lengthBytes));
      } catch (error) {
        if (!(error instanceof XenStoreProtocolError)) throw error;
        // Where the next message begins is not known any more.
        this.#end(error);
        return;
      }
    }
    if (!this.#isClosed) this.#waiter.wait(this.#fd, this.#onReadable);
  };

  #end(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#waiter.close();
    this.#closeFd(this.#fd);
    // Later, so that the receiver is never called from within send() or close().
    queueMicrotask(() => this.#handlers?.onClose(error));
  }
}

function refusedByKernel(code: XsErrorName, cause: unknown): XenStoreError {
  return new XenStoreError(code, `the kernel answered ${code}: ${meaningOf(code)}.`, { cause });
}

/** Which device to open, and how to wait for it. */
export interface OpenDeviceOptions {
  /** The device file. Default: the first of {@link XENBUS_DEVICE_PATHS} that exists. */
  readonly path?: string | undefined;
  /** Tells when to read. Default: {@link PollingWaiter}. */
  readonly waiter?: ReadableWaiter | undefined;
}

/**
 * Opens the kernel's xenbus device.
 * @throws XenStoreConnectError; its `systemCode` is `ENOENT` if there is no device (no Xen guest,
 *   or XenStore is not up), `EACCES` if this user may not open it.
 */
export function openDevice(options: OpenDeviceOptions = {}): Transport {
  const paths = options.path === undefined ? XENBUS_DEVICE_PATHS : [options.path];
  let lastError: NodeJS.ErrnoException | undefined;
  for (const path of paths) {
    try {
      const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
      return new DeviceTransport({ fd, waiter: options.waiter });
    } catch (error) {
      lastError = error as NodeJS.ErrnoException;
      if (lastError.code !== 'ENOENT') throw openError(path, lastError);
    }
  }
  throw openError(paths.join(' or '), lastError);
}

const advice: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such device, or XenStore is not up. Is this a Xen guest?',
  EACCES: 'this user may not open it. Run as root, or give the user access with a udev rule.',
  EPERM: 'it may not be opened here. In a systemd service, DeviceAllow= must name it.',
  ENXIO: 'the kernel has no driver for it. Is this a Xen guest?',
};

function openError(where: string, cause: NodeJS.ErrnoException | undefined): XenStoreConnectError {
  const code = cause?.code;
  const why = (code === undefined ? undefined : advice[code]) ?? `${cause?.message}.`;
  return new XenStoreConnectError(`Cannot open ${where}: ${why}`, code, { cause });
}
