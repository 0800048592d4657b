/** Others that keep the processor for so long have work of their own; clients are done sooner. */
const CROWDED_US = 1000;
/** Waits that are slept through then: the first time, and at most. */
const PAUSE_MIN = 1024;
const PAUSE_MAX = 16_384;

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
 * stands behind them again and again. Many waits are slept through then, more each time.
 *
 * Linux does the same for virtual processors (halt_poll_ns of KVM), where the host has it on.
 */
export class BusyPoll {
  readonly #longestUs: number;
  #startUs = 0;
  #lookedUs = 0;
  #wasShort = false;
  /** Waits still to be slept through, of how many, and how often looking was good since. */
  #pause = 0;
  #pauseLength = 0;
  #good = 0;

  /** @param longestUs how long a wait is looked through at most; 0 for sleeping at once. */
  constructor(longestUs: number) {
    this.#longestUs = longestUs | 0;
  }

  /** Whether the next wait begins with looking. */
  get pays(): boolean {
    return this.#wasShort && this.#pause === 0;
  }

  /** A wait begins, on a clock that wraps at 32 bits. Returns whether to look first. */
  begin(nowUs: number): boolean {
    const pays = this.pays;
    this.#startUs = nowUs;
    this.#lookedUs = nowUs;
    if (this.#pause > 0) this.#pause -= 1;
    return pays;
  }

  /** Nothing was found, and others had their turn. Returns whether to look again. */
  goesOn(nowUs: number): boolean {
    const awayUs = (nowUs - this.#lookedUs) | 0;
    this.#lookedUs = nowUs;
    if (awayUs < CROWDED_US) return this.#elapsedUs(nowUs) < this.#longestUs;
    this.#pauseLength = Math.min(Math.max(PAUSE_MIN, this.#pauseLength * 2), PAUSE_MAX);
    this.#pause = this.#pauseLength;
    this.#good = 0;
    return false;
  }

  /** Looking has found something. */
  found(): void {
    this.#wasShort = true;
    this.#good += 1;
    if (this.#good > PAUSE_MAX) this.#pauseLength = 0;
  }

  /** The wait was slept through to its end. */
  woken(nowUs: number): void {
    this.#wasShort = this.#elapsedUs(nowUs) < this.#longestUs;
  }

  #elapsedUs(nowUs: number): number {
    return (nowUs - this.#startUs) | 0;
  }
}
