/** How a planted bug gets into a history: by changing the objects of the program under test. */

import type { SeededRandom } from '../support/random.ts';
import type { ServedProcess } from './served-process.ts';
import type { SimulatedLane } from './simulated-lane.ts';

export interface Mutant {
  readonly name: string;
  /** Changes each lane before it is used. */
  readonly changeLane?: (lane: SimulatedLane, random: SeededRandom) => void;
  readonly changeProcess?: (process: ServedProcess) => void;
}
