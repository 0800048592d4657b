/**
 * Trouble by the clock: back ends that restart, disks that change their size or are plugged out,
 * and lies in XenStore. What happens is decided by the seed, when by the timers that are given.
 */

import { SeededRandom, type SimulatedFaults } from './faults.ts';

/** The timers of a clock. */
export interface SimulatedTimers {
  setTimeout(callback: () => void, delayMs: number): unknown;
  clearTimeout(handle: unknown): void;
}

/** The system's timers; they keep no program alive. */
export const systemTimers: SimulatedTimers = {
  setTimeout: (callback, delayMs) => setTimeout(callback, delayMs).unref(),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
};

/** What the schedule does to a disk. */
export interface FaultTarget {
  readonly vbd: string;
  isConnected(): boolean;
  killBackend(): Promise<void>;
  restartBackend(): Promise<void>;
  forceBackendState(state: string): Promise<void>;
  resize(sizeBytes: number): Promise<void>;
  unplug(): Promise<void>;
  /** Writes a value into the back end's directory, and its state again to make it seen. */
  publish(key: string, value: string): Promise<void>;
}

const KILL_PAUSE_MAX_MS = 300;
const LIE_INTERVAL_MS = 1000;

/** Values that no back end should publish. */
const STORE_LIES: readonly (readonly [key: string, value: string])[] = [
  ['sectors', '0'],
  ['sectors', '-8'],
  ['sectors', '18446744073709551615'],
  ['sectors', '99999999999999999999999999'],
  ['sectors', 'many'],
  ['sectors', ''],
  ['sector-size', '0'],
  ['sector-size', '511'],
  ['sector-size', '1073741824'],
  ['info', 'none'],
  ['feature-max-indirect-segments', '4294967295'],
  ['state', '9'],
  ['state', 'four'],
  ['state', ''],
  ['state', '3'],
];

/** The troubles of a host. */
export class FaultSchedule {
  readonly #faults: SimulatedFaults;
  readonly #timers: SimulatedTimers;
  readonly #log: (line: string) => void;
  readonly #random: SeededRandom;
  readonly #handles = new Set<unknown>();
  readonly #running = new Set<Promise<void>>();
  /** Ends each pause that is under way. */
  readonly #pauses = new Set<() => void>();
  #isStopped = false;

  constructor(faults: SimulatedFaults, timers: SimulatedTimers, log: (line: string) => void) {
    this.#faults = faults;
    this.#timers = timers;
    this.#log = log;
    this.#random = new SeededRandom(faults.seed);
  }

  /** Begins the troubles of one disk. */
  start(target: FaultTarget): void {
    const { restartSeconds, resize, unplugSeconds, hostile } = this.#faults;
    if (restartSeconds > 0) {
      this.#repeat(target, restartSeconds * 1000, () => this.#restart(target));
    }
    if (resize !== undefined) {
      this.#after(resize.afterSeconds * 1000, () => target.resize(resize.sizeBytes));
    }
    if (unplugSeconds > 0) this.#after(unplugSeconds * 1000, () => target.unplug());
    if (hostile) this.#repeat(target, LIE_INTERVAL_MS, () => this.#lie(target));
  }

  /** Begins nothing more. What is under way goes on; see {@link settled}. */
  stop(): void {
    this.#isStopped = true;
    for (const handle of this.#handles) this.#timers.clearTimeout(handle);
    for (const end of this.#pauses) end();
  }

  /** Resolves when nothing is under way any more, which for some needs XenStore to be closed. */
  async settled(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** Does something at each interval; to a disk that nobody uses there is nothing to do. */
  #repeat(target: FaultTarget, intervalMs: number, action: () => Promise<void>): void {
    this.#after(intervalMs, async () => {
      if (target.isConnected()) await action();
      this.#repeat(target, intervalMs, action);
    });
  }

  #after(delayMs: number, action: () => Promise<void>): void {
    if (this.#isStopped) return;
    const handle = this.#timers.setTimeout(() => {
      this.#handles.delete(handle);
      const run = action()
        // A disk may vanish under its own faults.
        .catch((error: unknown) => {
          if (this.#isStopped) return;
          this.#log(`fault: ${error instanceof Error ? error.message : String(error)}`);
        })
        .finally(() => this.#running.delete(run));
      this.#running.add(run);
    }, delayMs);
    this.#handles.add(handle);
  }

  /** The ways in which a back end is lost and comes back under a front end that goes on. */
  async #restart(target: FaultTarget): Promise<void> {
    switch (this.#random.below(4)) {
      case 0:
        await target.forceBackendState('5');
        break;
      case 1:
        await target.forceBackendState('6');
        break;
      default:
        await target.killBackend();
        await this.#pause(this.#random.next() * KILL_PAUSE_MAX_MS);
        await target.restartBackend();
    }
  }

  async #lie(target: FaultTarget): Promise<void> {
    const [key, value] = STORE_LIES[this.#random.below(STORE_LIES.length)] ?? ['state', '9'];
    this.#log(`fault: ${target.vbd}: ${key} = "${value}"`);
    await target.publish(key, value);
  }

  /** A pause that the end of the schedule cuts short. */
  async #pause(delayMs: number): Promise<void> {
    if (this.#isStopped) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        this.#timers.clearTimeout(handle);
        this.#pauses.delete(end);
        resolve();
      };
      const handle = this.#timers.setTimeout(end, delayMs);
      this.#pauses.add(end);
    });
  }
}
