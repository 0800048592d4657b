/**
 * The metadata contexts of a lane: what BLOCK_STATUS can report about its disk. Each is a file of
 * its own and one entry of {@link LANE_CONTEXTS}; the handshake offers what the list names.
 *
 * A context is told of everything that changes the disk, by all lanes, and keeps what it knows in
 * memory that they share. It is also a {@link MetaContext}, so that the same object serves a server
 * of nbd-server-ts.
 */

import { type Extent, type MetaContext, NbdCmd } from 'nbd-server-ts/protocol';
import type { Operation } from './operation.ts';
import { allocation } from './zero-map.ts';

/**
 * What one lane, or the main thread, sees of a context. Ranges are bytes, as the client named them;
 * one that began ends with the same range, or never when its outcome will never be known.
 */
export interface LaneContext extends MetaContext {
  /** As of {@link MetaContext}, without a backend, and at once: a lane waits for nobody. */
  extents(backend: unknown, offset: number, lengthBytes: number): readonly Extent[];
  /** A write or a trim was accepted, and nothing of it was asked of the backend yet. */
  dataBegins(offset: number, lengthBytes: number): void;
  /** The backend has answered all of it, with success or not; it will be executed no more. */
  dataEnds(offset: number, lengthBytes: number): void;
  /** A request for zeroes was accepted, as above. */
  zeroesBegin(offset: number, lengthBytes: number): void;
  /** @param isDone all of it was written, and nothing failed. */
  zeroesEnd(offset: number, lengthBytes: number, isDone: boolean): void;
  /** The disk may hold anything: the backend came back, or the size of the disk has changed. */
  contentUnknown(): void;
}

/** A kind of context: how its shared memory is made, and opened by each thread. */
export interface LaneContextKind {
  /** As {@link MetaContext.name}. */
  readonly name: string;
  /** Memory for a disk of so many bytes. */
  share(sizeBytes: number): SharedArrayBuffer;
  open(shared: SharedArrayBuffer): LaneContext;
}

/** All that there are. */
export const LANE_CONTEXTS: readonly LaneContextKind[] = [allocation];

/** Their names, as clients ask for them. */
export const LANE_CONTEXT_NAMES: readonly string[] = LANE_CONTEXTS.map(({ name }) => name);

/** What the lanes of one disk share of its contexts, in the order of {@link LANE_CONTEXTS}. */
export type SharedContexts = readonly SharedArrayBuffer[];

/** New memory for the lanes of a disk of `sizeBytes`. */
export function createSharedContexts(sizeBytes: number): SharedContexts {
  return LANE_CONTEXTS.map((kind) => kind.share(sizeBytes));
}

/** The contexts of one disk, for one thread. */
export class LaneContexts {
  readonly #contexts: readonly LaneContext[];

  constructor(shared: SharedContexts) {
    this.#contexts = LANE_CONTEXTS.map((kind, index) => {
      const memory = shared[index];
      if (memory === undefined) throw new RangeError(`There is no memory for ${kind.name}.`);
      return kind.open(memory);
    });
  }

  /** The context of a name that the handshake offered. */
  get(name: string): LaneContext {
    const context = this.#contexts.find((candidate) => candidate.name === name);
    if (context === undefined) throw new RangeError(`There is no context ${name}.`);
    return context;
  }

  /** `operation`, which changes its range, begins. */
  begin(operation: Operation): void {
    const { offset, lengthBytes } = operation;
    operation.trackedBytes = lengthBytes;
    const isZeroes = operation.command === NbdCmd.WRITE_ZEROES;
    for (const context of this.#contexts) {
      if (isZeroes) context.zeroesBegin(offset, lengthBytes);
      else context.dataBegins(offset, lengthBytes);
    }
  }

  /** The backend has answered all that was asked of it for `operation`, if that began. */
  end(operation: Operation): void {
    const { offset, trackedBytes, errno } = operation;
    if (trackedBytes === 0) return;
    operation.trackedBytes = 0;
    const isZeroes = operation.command === NbdCmd.WRITE_ZEROES;
    for (const context of this.#contexts) {
      if (isZeroes) context.zeroesEnd(offset, trackedBytes, errno === 0);
      else context.dataEnds(offset, trackedBytes);
    }
  }

  contentUnknown(): void {
    for (const context of this.#contexts) context.contentUnknown();
  }
}
