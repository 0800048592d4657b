/** How a block device is connected. */

/** Where a device reports what happens to its connection: one sentence a line. */
export interface BlockLog {
  /** What may help to find a fault. */
  debug(message: string): void;
  /** What happened in the ordinary course: connected, lost, back again. */
  info(message: string): void;
  /** What somebody should know of. */
  warn(message: string): void;
}

/** Options of `connect`; all may be left out. */
export interface ConnectOptions {
  /**
   * Uses the embedded simulated Xen host instead of this guest's: serves this file, or a RAM disk
   * of this size (`64M`, `2G`). Each such connection has a host of its own.
   */
  readonly simulate?: string | undefined;
  /** What the simulated back end offers, as `--simulate-features` of the command. */
  readonly simulateFeatures?: string | undefined;
  /** Trouble on purpose, as `--simulate-faults` of the command. */
  readonly simulateFaults?: string | undefined;
  /** Refuses writes, also where the disk could be written. Default: no. */
  readonly readOnly?: boolean | undefined;
  /**
   * For how many milliseconds operations wait for a back end that went away, before the device
   * counts as disconnected. Default: Infinity, as in the kernel.
   */
  readonly reconnectTimeoutMs?: number | undefined;
  /** Waits also for the return of a device that was unplugged, as for that of a back end. */
  readonly waitForReturn?: boolean | undefined;
  /** The ring has at most 2^N pages, 0 to 4. Default: 2. */
  readonly ringPageOrder?: number | undefined;
  /** Gives up connecting. A device that is connected is not touched by it. */
  readonly signal?: AbortSignal | undefined;
  /** Default: nothing is said. */
  readonly log?: BlockLog | undefined;
}

/** @throws TypeError or RangeError that names the option */
export function checkOptions(options: ConnectOptions): void {
  const { simulate, simulateFeatures, simulateFaults } = options;
  const { readOnly, waitForReturn, reconnectTimeoutMs = 0, ringPageOrder = 0 } = options;
  for (const [name, value] of Object.entries({ simulate, simulateFeatures, simulateFaults })) {
    if (value !== undefined && typeof value !== 'string') {
      throw new TypeError(`${name} must be a string`);
    }
  }
  if (simulate === undefined && (simulateFeatures ?? simulateFaults) !== undefined) {
    throw new TypeError(
      'simulateFeatures and simulateFaults are for a simulated host: give simulate',
    );
  }
  for (const [name, value] of Object.entries({ readOnly, waitForReturn })) {
    if (value !== undefined && typeof value !== 'boolean') {
      throw new TypeError(`${name} must be a boolean`);
    }
  }
  if (!(typeof reconnectTimeoutMs === 'number' && reconnectTimeoutMs >= 0)) {
    throw new RangeError('reconnectTimeoutMs must be a number of milliseconds, or Infinity');
  }
  if (!(Number.isInteger(ringPageOrder) && ringPageOrder >= 0 && ringPageOrder <= 4)) {
    throw new RangeError('ringPageOrder must be a whole number from 0 to 4');
  }
}
