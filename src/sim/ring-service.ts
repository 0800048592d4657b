/** What serves the rings of simulated back ends, and how it is commanded. */

import type { EngineStats } from './blkback-engine.ts';
import type { RunnerFaults, StopMode } from './queue-runner.ts';
import type { AttachQueue, WorkerCommand } from './worker-messages.ts';

/** Serves rings. Commands are obeyed in order; each promise resolves when that was done. */
export interface RingService {
  /** Called when a front end broke its ring. */
  onBroken: ((queueId: number) => void) | undefined;
  /** Names a disk, or gives it another size. With `isVolatile` it has a cache that power keeps. */
  setDisk(diskId: number, fd: number, sectors: number, isVolatile?: boolean): Promise<void>;
  attach(queue: Omit<AttachQueue, 'kind'>): Promise<void>;
  /** Resolves when the ring is not touched any more and nothing that it named is mapped. */
  detach(queueId: number, mode: StopMode): Promise<void>;
  /** Makes all rings late or faulty from now on. */
  setFaults(faults: RunnerFaults): Promise<void>;
  /** The power of a volatile disk fails. Missing where no disk can be volatile. */
  losePower?(diskId: number, seed: number): Promise<void>;
  stats(): Promise<EngineStats>;
  /** Every ring must be detached. */
  close(): Promise<void>;
}

/** Turns the calls of {@link RingService} into commands for whoever obeys them. */
export abstract class CommandedRings implements RingService {
  onBroken: ((queueId: number) => void) | undefined;

  /** Resolves when the command was obeyed. */
  protected abstract obey(command: WorkerCommand): Promise<void>;
  abstract stats(): Promise<EngineStats>;
  abstract close(): Promise<void>;

  setDisk(diskId: number, fd: number, sectors: number, isVolatile = false): Promise<void> {
    return this.obey({ kind: 'disk', diskId, fd, sectors, isVolatile });
  }

  attach(queue: Omit<AttachQueue, 'kind'>): Promise<void> {
    return this.obey({ kind: 'attach', ...queue });
  }

  detach(queueId: number, mode: StopMode): Promise<void> {
    return this.obey({ kind: 'detach', queueId, mode });
  }

  setFaults({ errorRate, delayMs }: RunnerFaults): Promise<void> {
    return this.obey({ kind: 'faults', errorRate, delayMs });
  }

  losePower(diskId: number, seed: number): Promise<void> {
    return this.obey({ kind: 'lose-power', diskId, seed });
  }
}
