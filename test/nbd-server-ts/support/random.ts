// A seeded random source (mulberry32), so that a failure can be replayed from the seed it printed.

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A u32. */
  uint32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.uint32() / 0x1_0000_0000) * limit);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error('There is nothing to pick from.');
    return item;
  }

  bytes(count: number): Uint8Array {
    const words = new Uint32Array(Math.ceil(count / 4));
    for (let index = 0; index < words.length; index += 1) words[index] = this.uint32();
    return new Uint8Array(words.buffer, 0, count);
  }
}

/** A new seed for a run that was not given one. */
export function freshSeed(): number {
  return Math.floor(Math.random() * 0x1_0000_0000);
}

/** Cuts bytes into pieces of random length, at least one byte each. */
export function cutRandomly(bytes: Uint8Array, random: Random): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  while (at < bytes.length) {
    const count = random.oneIn(2) ? 1 + random.below(4) : 1 + random.below(bytes.length - at);
    pieces.push(bytes.subarray(at, at + count));
    at += count;
  }
  return pieces;
}
