/**
 * A transport carries whole XenStore packets to the server and bytes back. Implementations: a Unix
 * socket (dom0's xenstored), /dev/xen/xenbus (a guest), and whatever a test or a simulator brings.
 */
export interface Transport {
  /**
   * Sends exactly one packet (16-byte header and payload). /dev/xen/xenbus loses a second message
   * in the same write, so callers never join packets.
   */
  send(packet: Uint8Array): void;
  /** Sets the receivers; called once, before the first {@link send}. */
  start(handlers: TransportHandlers): void;
  /** Closes the connection; `onClose` follows exactly once. */
  close(): void;
}

export interface TransportHandlers {
  /** Bytes from the server, cut anywhere: a message may come in pieces or several at once. */
  onData(chunk: Uint8Array): void;
  /** The connection ended, with an error or without. Nothing follows. */
  onClose(error?: Error): void;
}
