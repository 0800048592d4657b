/** What a ring must do, said with plain queues. */

import { expect, type Pair } from './ring-pair.ts';

/** A ring beside plain queues that say what it must hold. */
export class RingModel {
  readonly #pair: Pair;
  #nextValue = 1;
  #filled = 0;
  readonly #visibleRequests: number[] = [];
  readonly #filledRequests: number[] = [];
  readonly #taken: number[] = [];
  readonly #filledResponses: number[] = [];
  readonly #visibleResponses: number[] = [];
  /** Whether each end was told that it may sleep, and was not rung since. */
  #frontSleeps = true;
  #backSleeps = true;

  constructor(pair: Pair) {
    this.#pair = pair;
  }

  step(kind: string, count: number): void {
    const { front, back, area } = this.#pair;
    const view = area.view;
    switch (kind) {
      case 'fill':
        for (let left = Math.min(count, front.freeSlots()); left > 0; left--) {
          const value = this.#nextValue++;
          const at = front.reserveSlot();
          view.setUint32(at, value);
          view.setUint32(at + area.slotBytes - 4, value);
          this.#filledRequests.push(value);
          this.#filled++;
        }
        break;
      case 'publish': {
        const had = this.#filledRequests.length;
        this.#visibleRequests.push(...this.#filledRequests.splice(0));
        const mustNotify = front.publish();
        expect(mustNotify, had > 0 && this.#backSleeps, 'front notify');
        this.#backSleeps = this.#backSleeps && had === 0;
        break;
      }
      case 'take': {
        expect(back.pendingRequests(), this.#visibleRequests.length, 'pending requests');
        const taking = Math.min(count, this.#visibleRequests.length);
        for (let position = 0; position < taking; position++) {
          const at = back.requestOffset(position);
          const value = this.#visibleRequests.shift() ?? 0;
          expect(view.getUint32(at), value, 'request head');
          expect(view.getUint32(at + area.slotBytes - 4), value, 'request tail');
          this.#taken.push(value);
        }
        back.consume(taking);
        break;
      }
      case 'answer':
        for (let left = Math.min(count, this.#taken.length); left > 0; left--) {
          // Out of order: the newest first.
          const value = this.#taken.pop() ?? 0;
          view.setUint32(back.reserveSlot(), value);
          this.#filledResponses.push(value);
        }
        break;
      case 'reply': {
        const had = this.#filledResponses.length;
        this.#visibleResponses.push(...this.#filledResponses.splice(0));
        expect(back.publish(), had > 0 && this.#frontSleeps, 'back notify');
        this.#frontSleeps = this.#frontSleeps && had === 0;
        break;
      }
      case 'read': {
        expect(front.pendingResponses(), this.#visibleResponses.length, 'pending responses');
        const reading = Math.min(count, this.#visibleResponses.length);
        for (let position = 0; position < reading; position++) {
          const value = this.#visibleResponses.shift() ?? 0;
          expect(view.getUint32(front.responseOffset(position)), value, 'response');
        }
        front.consume(reading);
        this.#filled -= reading;
        break;
      }
      case 'sleepF': {
        const isWork = front.finalCheck();
        expect(isWork, this.#visibleResponses.length > 0, 'front final check');
        this.#frontSleeps = this.#frontSleeps || !isWork;
        break;
      }
      default: {
        const isWork = back.finalCheck();
        expect(isWork, this.#visibleRequests.length > 0, 'back final check');
        this.#backSleeps = this.#backSleeps || !isWork;
      }
    }
    expect(front.unanswered(), this.#filled, 'unanswered');
    expect(front.freeSlots(), front.slotCount - this.#filled, 'free slots');
    expect(back.unanswered(), this.#taken.length, 'back end unanswered');
    expect(back.unpublished(), this.#filledResponses.length, 'back end unpublished');
  }
}
