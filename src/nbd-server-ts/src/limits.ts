// The limits of a server, each with its default and the reason for it.

import { DEFAULT_NEGOTIATION_LIMITS, type NegotiationLimits } from './negotiation.ts';

/** How much one client, and all of them, may take. */
export interface ServerLimits extends NegotiationLimits {
  /** Open connections; the next one is closed at once. Default 128. */
  readonly connections: number;
  /** Time from the connection to the end of the handshake, TLS included. Default 10000. */
  readonly handshakeMs: number;
  /** Requests of one connection between their arrival and their sent reply. Default 64. */
  readonly requestsPerConnection: number;
  /**
   * Bytes of READ and WRITE data of one connection in that state. A single request may be larger.
   * Default 64 MiB.
   */
  readonly bytesPerConnection: number;
  /** The same for all connections together. Default 256 MiB. */
  readonly bytesTotal: number;
  /** What each connection may hold besides `bytesTotal`, so that nobody can starve it. 256 KiB. */
  readonly reservedBytesPerConnection: number;
  /**
   * When a request waits for `bytesTotal` this long, connections that hold some of it and have not
   * moved a byte for as long are closed. Default 30000.
   */
  readonly stallMs: number;
  /** Time a connection is given to read its last replies and close. Default 2000. */
  readonly lingerMs: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

/** The limits used where none are given. */
export const DEFAULT_SERVER_LIMITS: ServerLimits = Object.freeze({
  ...DEFAULT_NEGOTIATION_LIMITS,
  connections: 128,
  handshakeMs: 10_000,
  requestsPerConnection: 64,
  bytesPerConnection: 64 * MIB,
  bytesTotal: 256 * MIB,
  reservedBytesPerConnection: 256 * KIB,
  stallMs: 30_000,
  lingerMs: 2_000,
});
