// The bytes of request data that all connections of a server may hold together. A request takes its
// share before any memory is allocated for it and gives it back when its reply was sent; when there
// is no room its connection stops reading (back-pressure) and waits in line here.
//
// Two things keep one client from stopping the others: each connection has a small reserve of its
// own that is not part of this budget (see Connection), and holders that do not move are closed
// when others have waited for `stallMs`.

import type { Clock } from './clock.ts';

/** Somebody who holds bytes or waits for them. */
export interface BudgetHolder {
  /** When this holder last sent or received a byte. */
  readonly lastProgressMs: number;
  /** Bytes of the budget it holds. */
  readonly budgetedBytes: number;
  /** Closes it, since it holds what others wait for. */
  evict(): void;
}

interface Waiter {
  readonly holder: BudgetHolder;
  readonly lengthBytes: number;
  readonly grant: () => void;
}

/** A budget with a queue. */
export class MemoryBudget {
  readonly #totalBytes: number;
  readonly #stallMs: number;
  readonly #clock: Clock;
  readonly #holders = new Set<BudgetHolder>();
  readonly #waiters: Waiter[] = [];
  #usedBytes = 0;
  #cancelTimer: (() => void) | undefined;

  constructor(totalBytes: number, stallMs: number, clock: Clock) {
    this.#totalBytes = totalBytes;
    this.#stallMs = stallMs;
    this.#clock = clock;
  }

  /** Bytes taken at the moment. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Who could be evicted. Every connection joins when it begins and leaves when it ends. */
  join(holder: BudgetHolder): void {
    this.#holders.add(holder);
  }

  leave(holder: BudgetHolder): void {
    this.#holders.delete(holder);
    this.forget(holder);
  }

  /** Takes bytes at once, or returns false. Never overtakes those who wait. */
  take(lengthBytes: number): boolean {
    if (this.#waiters.length > 0 || !this.#hasRoomFor(lengthBytes)) return false;
    this.#usedBytes += lengthBytes;
    return true;
  }

  /** Stands in line; `grant` is called when the bytes were taken. */
  wait(holder: BudgetHolder, lengthBytes: number, grant: () => void): void {
    this.#waiters.push({ holder, lengthBytes, grant });
    this.#armTimer();
  }

  /** Gives bytes back and serves those who wait. */
  give(lengthBytes: number): void {
    this.#usedBytes -= lengthBytes;
    this.#serveWaiters();
  }

  #hasRoomFor(lengthBytes: number): boolean {
    // A request that is larger than the whole budget is served alone, or it would wait for ever.
    return this.#usedBytes === 0 || this.#usedBytes + lengthBytes <= this.#totalBytes;
  }

  #serveWaiters(): void {
    for (;;) {
      const first = this.#waiters[0];
      if (first === undefined || !this.#hasRoomFor(first.lengthBytes)) break;
      this.#waiters.shift();
      this.#usedBytes += first.lengthBytes;
      first.grant();
    }
    if (this.#waiters.length === 0) this.#disarmTimer();
  }

  /** Takes a holder out of the line. */
  forget(holder: BudgetHolder): void {
    const kept = this.#waiters.filter((waiter) => waiter.holder !== holder);
    this.#waiters.splice(0, this.#waiters.length, ...kept);
    // The one who left may have stood before a smaller request for which there is room.
    this.#serveWaiters();
  }

  #armTimer(): void {
    this.#cancelTimer ??= this.#clock.after(this.#stallMs, () => {
      this.#cancelTimer = undefined;
      const limitMs = this.#clock.nowMs() - this.#stallMs;
      for (const holder of this.#holders) {
        if (holder.budgetedBytes > 0 && holder.lastProgressMs <= limitMs) holder.evict();
      }
      if (this.#waiters.length > 0) this.#armTimer();
    });
  }

  #disarmTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}
