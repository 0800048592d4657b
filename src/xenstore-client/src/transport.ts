/**
 * A transport carries whole XenStore packets to the server and bytes back. Implementations: a Unix
 * socket (dom0's xenstored), /dev/xen/xenbus (a guest), and whatever a test or a simulator brings.
 */
export interface Transport {
  /**
   * Sends exactly one packet (16-byte header and payload). /dev/xen/xenbus loses a second message
   * in the same write, so callers never join packets. After the end of the connection it does
   * nothing.
   * @throws XenStoreError if this one packet was refused and the connection goes on: `E2BIG` when
   * it
   *   is too long for the transport, or what the kernel answered. A failure that ends the
   *   connection is told through {@link TransportHandlers.onClose} instead.
   */
  send(packet: Uint8Array): void;
  /** Sets the receivers; called once, before the first {@link send}. */
  start(handlers: TransportHandlers): void;
  /** Closes the connection; `onClose` follows exactly once. Further calls do nothing. */
  close(): void;
}

/** Who receives what a transport brings. Neither is called from within `send` or `start`. */
export interface TransportHandlers {
  /**
   * Bytes from the server, cut anywhere: a message may come in pieces or several at once. The
   * memory may be reused once this returns.
   */
  onData(chunk: Uint8Array): void;
  /** The connection ended, with an error or without. Nothing follows. */
  onClose(error?: Error): void;
}
