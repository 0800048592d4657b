/**
 * The kernel's NBD driver: what is asked of it (see linux-nbd.ts), and the numbers of a device. A
 * device that has lost its connection keeps its requests until it is given another one.
 */

/** What a device is told of the disk behind a socket. */
export interface NbdConnection {
  /** The socket, after the handshake. The kernel takes a reference of its own. */
  readonly fd: number;
  readonly sizeBytes: bigint;
  /** The logical block size: a power of two from 512 to 4096. */
  readonly blockBytes: number;
  /** Transmission flags of NBD. */
  readonly flags: number;
}

/** The driver. Indexes are those of /dev/nbdN. Calls throw a SysError or a DaemonError. */
export interface KernelNbd {
  /**
   * Makes a block device of a connection. When that is lost, requests wait `waitSeconds` for
   * another. `owner` is a name for who may give it one.
   */
  connect(index: number, connection: NbdConnection, waitSeconds: number, owner: string): void;
  /** Gives a device that has lost its connection another one. */
  reconnect(index: number, connection: NbdConnection, owner: string): void;
  /** Ends a device; requests that wait fail. */
  disconnect(index: number): void;
  /** Who has connected the device; undefined when nobody has, empty when he gave no name. */
  ownerOf(index: number): string | undefined;
  /** Calls back whenever a device has lost its connection, until {@link close}. */
  onLost(callback: (index: number) => void): void;
  close(): void;
}
