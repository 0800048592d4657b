// What a scenario is, and what it is given. Scenarios run one after the other inside dom0; each
// leaves dom0 as it found it, by the clean-up steps it registers.

export interface Scenario {
  /** A sentence that reads well after "ok". */
  readonly name: string;
  /** Default 600 s: the machine is emulated. */
  readonly timeoutMs?: number;
  run(lab: Lab): Promise<void>;
}

export interface Lab {
  /** Says what was done or seen, for the reader of the run. */
  step(text: string): void;
  /** Registers what must happen at the end, last registered first, also after a failure. */
  cleanUp(action: () => Promise<void> | void): void;
  /** Aborted when the scenario's time is up. */
  readonly signal: AbortSignal;
}
