/** How a planted bug gets into a history: by changing the objects of the program under test. */

import type { XenStoreClient } from 'xenstore-client';
import type { SeededRandom } from '../support/random.ts';
import type { Environment } from './environment.ts';
import type { SimulatedLane } from './simulated-lane.ts';
import type { TroubleName } from './trouble-names.ts';

export interface Mutant {
  readonly name: string;
  /** Troubles that bring it out; undefined for any. */
  readonly troubles?: readonly TroubleName[];
  /** Changes code that all objects share; returns how to change it back. */
  readonly install?: () => () => void;
  /** Changes each lane before it is used. */
  readonly changeLane?: (lane: SimulatedLane, random: SeededRandom) => void;
  /** Changes what the front end sees of XenStore. */
  readonly changeStore?: (store: XenStoreClient, environment: Environment) => void;
  /** Changes the world, which must then be found out as the liar that it is. */
  readonly changeEnvironment?: (environment: Environment) => void;
}
