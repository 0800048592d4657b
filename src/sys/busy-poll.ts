/** Others that keep the processor for so long have work of their own; clients are done sooner. */
const CROWDED_US = 1000;
/** How long waits are slept through then: the first time, and at most. */
const PAUSE_MIN_US = 10_000;
const PAUSE_MAX_US = 160_000;
/** After so long without a crowd it starts with the first again. */
const FORGET_US = 1_000_000;

/**
 * Whether a thread that has nothing to do shall look for work a little longer before it sleeps.
 *
 * To wake a thread whose processor sleeps as well takes longer than a small request does: 30 us and
 * more in a virtual machine, at each hop, and it costs the one who wakes several of them. A thread
 * that is still looking needs no waking. So a wait begins with looking when the wait before it was
 * short, and with sleeping when it was not: a quiet thread costs nothing, and one that was busy
 * looks once in vain.
 *
 * Between two looks the owner lets others run that wait for its processor. When one of them keeps
 * it for a whole slice, processors are scarce: then none of them sleeps, and who has let others run
 * stands behind them again and again. Waits are slept through for a while then, longer each time.
 *
 * Linux does the same for virtual processors (halt_poll_ns of KVM), where the host has it on.
 */
export class BusyPoll {
  readonly #longestUs: number;
  #startUs = 0;
  #lookedUs = 0;
  #wasShort = false;
  /** The processor was wanted by others at this time, and is left to them for so long. */
  #crowdedUs = 0;
  #pauseUs = 0;
  #isPaused = false;

  /** @param longestUs how long a wait is looked through at most; 0 for sleeping at once. */
  constructor(longestUs: number) {
    this.#longestUs = longestUs | 0;
  }

  /** Whether a wait that begins now begins with looking. */
  get pays(): boolean {
    return this.#wasShort && !this.#isPaused;
  }

  /** A wait begins, on a clock that wraps at 32 bits. Returns whether to look first. */
  begin(nowUs: number): boolean {
    this.#startUs = nowUs;
    this.#lookedUs = nowUs;
    if (this.#isPaused && elapsedUs(this.#crowdedUs, nowUs) >= this.#pauseUs) {
      this.#isPaused = false;
    }
    return this.pays;
  }

  /** Nothing was found, and others had their turn. Returns whether to look again. */
  goesOn(nowUs: number): boolean {
    const awayUs = elapsedUs(this.#lookedUs, nowUs);
    this.#lookedUs = nowUs;
    if (awayUs < CROWDED_US) return elapsedUs(this.#startUs, nowUs) < this.#longestUs;
    const isNew = elapsedUs(this.#crowdedUs, nowUs) >= FORGET_US;
    this.#pauseUs = isNew
      ? PAUSE_MIN_US
      : Math.min(Math.max(PAUSE_MIN_US, this.#pauseUs * 2), PAUSE_MAX_US);
    this.#crowdedUs = nowUs;
    this.#isPaused = true;
    return false;
  }

  /** Looking has found something. */
  found(): void {
    this.#wasShort = true;
  }

  /** The wait was slept through to its end. */
  woken(nowUs: number): void {
    this.#wasShort = elapsedUs(this.#startUs, nowUs) < this.#longestUs;
  }
}

/** Right up to 71 minutes; after that it may be too small, which costs a pause at most. */
function elapsedUs(fromUs: number, toUs: number): number {
  return (toUs - fromUs) >>> 0;
}
