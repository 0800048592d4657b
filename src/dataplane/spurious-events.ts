/** So many events in a row without a response behind them happen where nobody means harm. */
const HARMLESS = 64;
const DELAY_MS_MAX = 128;

/**
 * Events that the backend sends without having answered anything. A storm of them would keep the
 * lane awake for nothing: the more come in a row, the later the event channel is unmasked, and what
 * comes under the mask costs nothing. Responses are looked for meanwhile, after each delay.
 * Linux does the same for its own frontends since XSA-391 (late EOI, drivers/xen/events).
 */
export class SpuriousEvents {
  #inARow = 0;

  /** An event came, and so many responses with it. */
  came(responses: number): void {
    if (responses === 0) this.#inARow += 1;
    else this.#inARow = 0;
  }

  /** How much later than at once the next event may come. */
  get delayMs(): number {
    const excess = this.#inARow - HARMLESS;
    return excess < 0 ? 0 : Math.min(2 ** excess, DELAY_MS_MAX);
  }
}
