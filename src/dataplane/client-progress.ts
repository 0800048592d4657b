/**
 * Whether a client moves: takes its replies, and sends the payload that it announced. Somebody
 * looks only while others wait for what the client holds; each question compares with the look
 * before.
 */

/** A client that takes less than this between two looks, so many times in a row, is slow. */
const SLOW_BYTES = 16 * 1024;
const SLOW_LOOKS = 4;
/** How long a client may stand still while others need what it holds. */
const IDLE_MS_MAX = 30_000;

export class ClientProgress {
  #sentBytes = 0;
  #slowLooks = 0;
  #missingBytes = 0;
  #owedBytes = -1;
  #owedSinceMs = 0;

  /** The client's socket took replies. */
  sent(lengthBytes: number): void {
    this.#sentBytes += lengthBytes;
  }

  /** It took all that there were. */
  sentAll(): void {
    this.#slowLooks = 0;
  }

  /** Whether it has taken too little of its replies for too many looks. */
  isSlow(isBlocked: boolean): boolean {
    const isSlowNow = isBlocked && this.#sentBytes < SLOW_BYTES;
    this.#sentBytes = 0;
    this.#slowLooks = isSlowNow ? this.#slowLooks + 1 : 0;
    return this.#slowLooks >= SLOW_LOOKS;
  }

  /** Whether the payload of a write misses as many bytes as it did; 0 where there is no write. */
  isPayloadLate(missingBytes: number): boolean {
    const isLate = missingBytes > 0 && missingBytes === this.#missingBytes;
    this.#missingBytes = missingBytes;
    return isLate;
  }

  /** Whether for too long it has owed the same: replies to take, payload to send. */
  hasStopped(owedBytes: number, nowMs: number): boolean {
    if (owedBytes === 0 || owedBytes !== this.#owedBytes) {
      this.#owedBytes = owedBytes;
      this.#owedSinceMs = nowMs;
    }
    return nowMs - this.#owedSinceMs > IDLE_MS_MAX;
  }
}
