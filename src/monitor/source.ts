/** What the monitor looks at. All of it can be read at any time, at no cost to the lanes. */

import type { Lane } from '../dataplane/index.ts';

/** A lane as far as it is looked at. */
export type MonitoredLane = Pick<Lane, 'counters' | 'wake'>;

/** A vbd that is served. */
export interface MonitoredVbd {
  readonly name: string;
  /** The export's name. */
  readonly exportName: string;
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  /** Its backend is lost, and clients wait for it. */
  readonly isWaiting: boolean;
  /** Slots of all its rings, and granted pages for data in transit. */
  readonly slotCount: number;
  readonly pageCount: number;
  /** What was agreed with the backend, for people. */
  readonly features: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly lanes: readonly MonitoredLane[];
}

/** A client that is served. */
export interface MonitoredClient {
  readonly id: number;
  readonly peer: string;
  /** The name of its vbd. */
  readonly vbd: string;
  readonly exportName: string;
  readonly isTls: boolean;
  /** Unix time in ms. */
  readonly sinceMs: number;
}

/** The whole daemon. */
export interface MonitorSource {
  readonly version: string;
  state(): 'starting' | 'serving' | 'stopping';
  vbds(): readonly MonitoredVbd[];
  clients(): readonly MonitoredClient[];
  /** Clients turned away because there were too many, and handshakes that failed. */
  refusals(): { readonly tooMany: number; readonly handshake: number };
}
