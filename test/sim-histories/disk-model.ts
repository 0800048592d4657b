/**
 * What a client may believe about the disk, byte by byte: the judge of a history.
 *
 * A byte is a register. A read may return what was written by any write that had begun when the
 * read ended, unless that write is *stale*: another write of the same byte began after it had
 * ended, and was acknowledged before the read began. A write that failed, or whose client has left,
 * may have happened or not; it makes no other stale. A trim may have happened or not, either.
 *
 * A crash of the back end may lose its volatile cache. From then on only a write that was made
 * durable before, or that began after the crash, makes others stale. A write is durable when a
 * flush that began after its acknowledgement was acknowledged, or it was acknowledged with FUA, and
 * no crash came in between: a front end cannot know of data that an old back end has lost after it
 * has answered for it.
 *
 * Moments are numbers of events, not times.
 */

/** A write, from its beginning. */
export interface ModelWrite {
  readonly offset: number;
  readonly bytes: Buffer;
  readonly isTrim: boolean;
  readonly beganAt: number;
  /** Infinity while it is in progress. */
  endedAt: number;
  /** Acknowledged as done. */
  isDone: boolean;
  isDurable: boolean;
}

const NEVER = Number.POSITIVE_INFINITY;
/** Writes are looked through for superseded ones after so many of them. */
const PRUNE_EVERY = 24;

export class DiskModel {
  #writes: ModelWrite[] = [];
  #moment = 0;
  #crashedAt = -1;
  #sincePrune = 0;
  /** Beginnings of the reads in progress. */
  readonly #reads = new Set<{ readonly beganAt: number }>();

  /** @param bytes what the disk holds at first, durably. */
  constructor(bytes: Buffer) {
    this.#writes.push({
      offset: 0,
      bytes,
      isTrim: false,
      beganAt: 0,
      endedAt: 0,
      isDone: true,
      isDurable: true,
    });
  }

  beginWrite(offset: number, bytes: Buffer, isTrim: boolean): ModelWrite {
    const write: ModelWrite = {
      offset,
      bytes,
      isTrim,
      beganAt: ++this.#moment,
      endedAt: NEVER,
      isDone: false,
      isDurable: false,
    };
    this.#writes.push(write);
    return write;
  }

  /** @param isDone false for a write that failed, or of which nobody will ever hear. */
  endWrite(write: ModelWrite, isDone: boolean, isFua: boolean): void {
    write.endedAt = ++this.#moment;
    write.isDone = isDone;
    if (isDone && isFua) write.isDurable = write.beganAt > this.#crashedAt;
    this.#sincePrune += 1;
    if (this.#sincePrune >= PRUNE_EVERY) this.#prune();
  }

  /** Returns when the flush began, for {@link endFlush}. */
  beginFlush(): number {
    return ++this.#moment;
  }

  /** A flush was acknowledged. */
  endFlush(beganAt: number): void {
    for (const write of this.#writes) {
      if (write.isDone && write.endedAt < beganAt && write.beganAt > this.#crashedAt) {
        write.isDurable = true;
      }
    }
  }

  /** The back end's cache was lost, as a whole or in part. */
  crash(): void {
    this.#crashedAt = ++this.#moment;
  }

  beginRead(): { readonly beganAt: number } {
    const read = { beganAt: ++this.#moment };
    this.#reads.add(read);
    return read;
  }

  /** The moment at which a read has its data; the bytes are given to {@link checkRead} later. */
  now(): number {
    return ++this.#moment;
  }

  endRead(read: { readonly beganAt: number }): void {
    this.#reads.delete(read);
  }

  /** What is wrong with the bytes that a read returned; undefined when nothing is. */
  checkRead(offset: number, bytes: Buffer, beganAt: number, endedAt: number): string | undefined {
    const end = offset + bytes.length;
    const relevant = this.#writes.filter(
      (write) =>
        write.offset < end && write.offset + write.bytes.length > offset && write.beganAt < endedAt,
    );
    const cuts = new Set<number>([offset, end]);
    for (const write of relevant) {
      if (write.offset > offset) cuts.add(write.offset);
      if (write.offset + write.bytes.length < end) cuts.add(write.offset + write.bytes.length);
    }
    const borders = [...cuts].sort((one, other) => one - other);
    for (let index = 1; index < borders.length; index++) {
      const from = borders[index - 1] as number;
      const to = borders[index] as number;
      const covering = relevant.filter(
        (write) => write.offset <= from && write.offset + write.bytes.length >= to,
      );
      const candidates = this.#fresh(covering, beganAt);
      const wrongAt = findWrongByte(candidates, bytes, offset, from, to);
      if (wrongAt >= 0)
        return this.#describe(wrongAt, bytes[wrongAt - offset], covering, candidates);
    }
    return undefined;
  }

  /** Those of the writes that are not stale for a read that began at `beganAt`. */
  #fresh(covering: readonly ModelWrite[], beganAt: number): ModelWrite[] {
    let lastSolid = -1;
    for (const write of covering) {
      if (write.endedAt < beganAt && this.#isSolid(write)) {
        lastSolid = Math.max(lastSolid, write.beganAt);
      }
    }
    return covering.filter((write) => write.endedAt >= lastSolid);
  }

  #isSolid(write: ModelWrite): boolean {
    if (!write.isDone || write.isTrim) return false;
    return write.isDurable || write.beganAt > this.#crashedAt;
  }

  /** Forgets writes that no read can return any more. */
  #prune(): void {
    this.#sincePrune = 0;
    let oldestRead = this.#moment;
    for (const { beganAt } of this.#reads) oldestRead = Math.min(oldestRead, beganAt);
    const solid = this.#writes.filter(
      (write) => write.isDone && !write.isTrim && write.isDurable && write.endedAt < oldestRead,
    );
    this.#writes = this.#writes.filter(
      (write) =>
        !solid.some(
          (other) =>
            other.beganAt > write.endedAt &&
            other.offset <= write.offset &&
            other.offset + other.bytes.length >= write.offset + write.bytes.length,
        ),
    );
  }

  #describe(
    at: number,
    byte: number | undefined,
    covering: readonly ModelWrite[],
    candidates: readonly ModelWrite[],
  ): string {
    const name = (write: ModelWrite): string =>
      `${write.isTrim ? 'trim' : 'write'} ${write.offset}+${write.bytes.length} ` +
      `[${write.beganAt}..${write.endedAt}${write.isDurable ? ' durable' : ''}] ` +
      `has ${write.bytes[at - write.offset]}`;
    const stale = covering.filter((write) => !candidates.includes(write));
    const source = stale.filter((write) => write.bytes[at - write.offset] === byte);
    return (
      `byte ${at} is ${byte}, which no write in question has: ${candidates.map(name).join('; ')}` +
      (source.length === 0 ? '' : `. Stale writes that have it: ${source.map(name).join('; ')}`) +
      (this.#crashedAt < 0 ? '' : `. Last crash at ${this.#crashedAt}`)
    );
  }
}

/** The first byte of `from`..`to` that none of the candidates has written; -1 for none. */
function findWrongByte(
  candidates: readonly ModelWrite[],
  bytes: Buffer,
  offset: number,
  from: number,
  to: number,
): number {
  // Nearly always the youngest candidate has written all of it.
  for (let index = candidates.length - 1; index >= 0; index--) {
    const write = candidates[index] as ModelWrite;
    const isSame =
      bytes.compare(
        write.bytes,
        from - write.offset,
        to - write.offset,
        from - offset,
        to - offset,
      ) === 0;
    if (isSame) return -1;
  }
  for (let at = from; at < to; at++) {
    const byte = bytes[at - offset];
    if (!candidates.some((write) => write.bytes[at - write.offset] === byte)) return at;
  }
  return -1;
}
