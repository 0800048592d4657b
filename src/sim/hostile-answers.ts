/**
 * A back end that lies on the ring: what a front end must survive (Xen advisories 391, 396, 403 and
 * the checks of blkif_interrupt in Linux). Each lie is of one kind and can be asked for alone.
 */

import type { BackRing } from '../blkif/index.ts';
import type { GrantMapper, Job } from './blkback-engine.ts';
import type { SeededRandom } from './faults.ts';

/** Kinds of lies on a ring. */
export const RingLie = {
  /** A response to a request that was never made. */
  WRONG_ID: 'wrong-id',
  /** A second response to a request that was answered. */
  REPEATED_ID: 'repeated-id',
  /** A status that does not exist. */
  UNKNOWN_STATUS: 'unknown-status',
  /** Another operation than was asked for. */
  WRONG_OPERATION: 'wrong-operation',
  /** rsp_prod further ahead than there are requests. */
  PRODUCER_AHEAD: 'producer-ahead',
  /** rsp_prod runs backwards. */
  PRODUCER_BACK: 'producer-back',
  /** Many events with nothing behind them. */
  EVENT_STORM: 'event-storm',
  /** Pages are written after the request was answered. */
  LATE_WRITE: 'late-write',
} as const;
export type RingLie = (typeof RingLie)[keyof typeof RingLie];

/** Every kind of lie. */
export const ALL_RING_LIES: readonly RingLie[] = Object.values(RingLie);

/** Index of rsp_prod among the words of the ring's header. */
const RSP_PROD = 2;
const STORM_EVENTS = 20_000;
/** Events per turn of a storm: others get their turn too. */
const STORM_EVENTS_PER_TURN = 500;
/** How late a page is written again. */
const LATE_WRITE_MS = 2;
const SCRIBBLE = 0xee;

/** What to lie about, and how often. */
export interface Hostility {
  /** Part of the answers that is a lie, 0..1. */
  readonly rate: number;
  readonly lies: readonly RingLie[];
}

interface Scribble {
  readonly grefs: Uint32Array;
  readonly offsets: number[];
  readonly atMs: number;
}

/** What a liar works with. */
export interface HostileParts {
  /** The header of the ring, behind the back of its owner. */
  readonly words: Uint32Array<ArrayBufferLike>;
  readonly ring: BackRing;
  readonly grants: GrantMapper;
  readonly random: SeededRandom;
  readonly notify: () => void;
}

/** Spoils the answers of one ring. */
export class HostileAnswers {
  private readonly parts: HostileParts;
  private readonly hostility: Hostility;
  private readonly scribbles: Scribble[] = [];
  private stormEvents = 0;
  private lastIdLow = 0;
  private lastIdHigh = 0;
  private answered = 0;
  /** What to do to the producer once the responses are published. */
  private producerStep = 0;

  constructor(parts: HostileParts, hostility: Hostility) {
    this.parts = parts;
    this.hostility = hostility;
  }

  /** Decides about one answer that is about to be given, and spoils it. */
  spoil(job: Job, nowMs: number): void {
    const { random } = this.parts;
    const { lies, rate } = this.hostility;
    const lie = random.next() < rate ? lies[random.below(lies.length)] : undefined;
    const { idLow, idHigh } = job;
    if (lie !== undefined) this.lie(lie, job, nowMs);
    this.lastIdLow = idLow;
    this.lastIdHigh = idHigh;
    this.answered += 1;
  }

  /** Called when the responses of a turn are published. */
  published(): void {
    if (this.producerStep === 0) return;
    const { words, notify } = this.parts;
    Atomics.store(words, RSP_PROD, Atomics.load(words, RSP_PROD) + this.producerStep);
    this.producerStep = 0;
    notify();
  }

  /** Does what a turn at this time has to do. */
  runDue(nowMs: number): void {
    for (let count = 0; count < STORM_EVENTS_PER_TURN && this.stormEvents > 0; count++) {
      this.stormEvents -= 1;
      this.parts.notify();
    }
    while ((this.scribbles[0]?.atMs ?? Number.POSITIVE_INFINITY) <= nowMs) this.scribble();
  }

  /** When {@link runDue} is to be called next. */
  get nextDueMs(): number {
    if (this.stormEvents > 0) return 0;
    return this.scribbles[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  /** Ends everything, and gives the pages back. */
  stop(): void {
    this.stormEvents = 0;
    while (this.scribbles.length > 0) this.scribble();
  }

  private lie(lie: RingLie, job: Job, nowMs: number): void {
    const { random, ring } = this.parts;
    switch (lie) {
      case RingLie.WRONG_ID:
        this.wrongId(job);
        return;
      case RingLie.REPEATED_ID:
        // There is none before the first.
        if (this.answered === 0) return;
        job.idLow = this.lastIdLow;
        job.idHigh = this.lastIdHigh;
        return;
      case RingLie.UNKNOWN_STATUS:
        job.status = [1, 2, -3, 0x7fff, -0x8000][random.below(5)] ?? 1;
        return;
      case RingLie.WRONG_OPERATION:
        job.operation = job.operation === 0 ? 1 : 0;
        return;
      case RingLie.PRODUCER_AHEAD:
        this.producerStep = [ring.slotCount + 1, 2 ** 31, ring.slotCount * 4][random.below(3)] ?? 1;
        return;
      case RingLie.PRODUCER_BACK:
        this.producerStep = -1 - random.below(ring.slotCount);
        return;
      case RingLie.EVENT_STORM:
        this.stormEvents += STORM_EVENTS;
        return;
      case RingLie.LATE_WRITE:
        this.keepForScribbling(job, nowMs);
        return;
    }
  }

  private wrongId(job: Job): void {
    const { random, ring } = this.parts;
    switch (random.below(4)) {
      case 0:
        job.idLow = (job.idLow + ring.slotCount) >>> 0;
        return;
      case 1:
        job.idLow = 0xffff_ffff;
        job.idHigh = 0xffff_ffff;
        return;
      case 2:
        // The same low half: caught only by who looks at all 64 bits.
        job.idHigh = (job.idHigh + 1) >>> 0;
        return;
      default:
        job.idLow = (0x1000_0000 + random.below(2 ** 28)) >>> 0;
    }
  }

  /** Maps the pages once more, to have them after the answer. */
  private keepForScribbling(job: Job, nowMs: number): void {
    const { grants } = this.parts;
    const grefs = job.grefs.slice(0, job.mappedCount).filter((gref) => {
      const isMapped = grants.map(gref, true) >= 0;
      if (isMapped) grants.unmap(gref);
      return isMapped;
    });
    const offsets = Array.from(grefs, (gref) => grants.map(gref, true));
    this.scribbles.push({ grefs, offsets, atMs: nowMs + LATE_WRITE_MS });
  }

  private scribble(): void {
    const scribble = this.scribbles.shift();
    if (scribble === undefined) return;
    const { grants } = this.parts;
    for (const [index, gref] of scribble.grefs.entries()) {
      const offset = scribble.offsets[index] ?? -1;
      if (offset < 0) continue;
      new Uint8Array(grants.view.buffer, grants.view.byteOffset + offset, 4096).fill(SCRIBBLE);
      grants.unmap(gref);
    }
  }
}
