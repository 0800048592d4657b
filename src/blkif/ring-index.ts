/**
 * Arithmetic on ring indices (xen/include/public/io/ring.h). Indices run freely through all of
 * u32 and wrap; a slot is the index under a mask. Two indices are only ever compared by the
 * wrapped difference between them, never by `<`.
 *
 * The 32 bits of an index are held as a signed number: V8 keeps those without a heap object. Each
 * function takes either form.
 */

/** How far `to` is ahead of `from`, in 0..2^32-1. */
export function ringDistance(from: number, to: number): number {
  return (to - from) >>> 0;
}

/** The index `count` steps after `index`, as a signed number. */
export function ringAdvance(index: number, count: number): number {
  return (index + count) | 0;
}

/**
 * Whether a producer that moved from `oldProducer` to `newProducer` must ring the other end, which
 * asked to be woken when the producer reaches `event`.
 *
 * `newProducer - event < newProducer - oldProducer` (wrapped) says that `event` lies in
 * (oldProducer, newProducer]: this very publication passed it. When it had been passed before, the
 * other end was already rung; when it is not yet reached, the other end did not ask.
 */
export function passesEvent(oldProducer: number, newProducer: number, event: number): boolean {
  return (newProducer - event) >>> 0 < (newProducer - oldProducer) >>> 0;
}
