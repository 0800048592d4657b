/**
 * The ring consumer of a block back end, in the manner of Linux's drivers/block/xen-blkback
 * (blkback.c): the same checks in the same order, the same statuses. No threads, no clock, no
 * descriptors: it is stepped by whoever owns it, and a disk does the work.
 *
 * A request goes through three steps on a {@link Job}: `take` copies it out of the ring, judges it
 * and maps its pages; `execute` moves the data; `answer` unmaps and writes the response. Usually
 * they follow each other at once on one reused job, and nothing is allocated. A back end that is
 * told to be late keeps jobs between the steps, with their pages mapped.
 *
 * The front end is not trusted: a slot is copied once and only the copy is looked at; indices,
 * segments and grants are checked; a producer that cannot be true stops the ring for ever.
 */

import {
  type BackRing,
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  type BlkifLayout,
  BlkifOp,
  BlkifStatus,
  decodeRequest,
  decodeSegments,
  encodeResponse,
  RING_BROKEN,
  RING_SECTOR_BYTES,
  RING_SECTORS_PER_PAGE,
  SEGMENTS_PER_INDIRECT_PAGE,
} from '../blkif/index.ts';
import { Job } from './blkback-job.ts';
import type { EngineDisk, EngineFeatures, GrantMapper } from './engine-parts.ts';
import { createEngineStats, type EngineStats } from './engine-stats.ts';
import { IovecList } from './iovec-list.ts';

export {
  createEngineStats,
  type EngineDisk,
  type EngineFeatures,
  type EngineStats,
  type GrantMapper,
  type Job,
};

/** blkback's max_persistent_grants: above it, grants are mapped for one request only. */
const MAX_PERSISTENT_GRANTS = 1056;

/** What an engine is made of. */
export interface EngineParts {
  readonly ring: BackRing;
  readonly layout: BlkifLayout;
  readonly grants: GrantMapper;
  readonly disk: EngineDisk;
  readonly features: EngineFeatures;
  /** Shared by engines of one thread, or of one test. */
  readonly iovecs?: IovecList;
  readonly stats?: EngineStats;
}

/** Serves one ring, when it is told to. */
export class BlkbackEngine {
  readonly ring: BackRing;
  readonly stats: EngineStats;
  /** The front end broke the ring: nothing is read from it any more. */
  isBroken = false;
  private readonly layout: BlkifLayout;
  private readonly grants: GrantMapper;
  private readonly disk: EngineDisk;
  private readonly features: EngineFeatures;
  private readonly iovecs: IovecList;
  private readonly job: Job;
  private readonly alignmentMask: number;
  /** Persistent grants: by reference, the offset of a page that is kept mapped, plus one. */
  private readonly kept: Uint32Array;
  private keptCount = 0;

  constructor(parts: EngineParts) {
    this.ring = parts.ring;
    this.layout = parts.layout;
    this.grants = parts.grants;
    this.disk = parts.disk;
    this.features = parts.features;
    this.iovecs = parts.iovecs ?? new IovecList();
    this.stats = parts.stats ?? createEngineStats();
    this.job = this.createJob();
    this.alignmentMask = parts.features.sectorSize / RING_SECTOR_BYTES - 1;
    this.kept = new Uint32Array(parts.features.persistent ? parts.grants.grefLimit : 0);
  }

  /** A job for {@link takeInto}. */
  createJob(): Job {
    return new Job(this.features.indirect);
  }

  /**
   * Serves requests until none is pending or about `budgetBytes` were moved. Returns how many.
   * Responses are filled in and not yet shown: see {@link publish}.
   */
  run(budgetBytes: number): number {
    const { job } = this;
    let movedSectors = 0;
    let count = 0;
    while (movedSectors * RING_SECTOR_BYTES < budgetBytes && this.takeInto(job)) {
      this.execute(job);
      this.answer(job);
      movedSectors += job.sectorCount;
      count += 1;
    }
    return count;
  }

  /** Shows the responses to the front end. Returns whether it must be notified. */
  publish(): boolean {
    return this.ring.publish();
  }

  /** Whether there is something to take; also true for a ring that is about to be found broken. */
  get hasRequests(): boolean {
    return !this.isBroken && this.ring.pendingRequests() !== 0;
  }

  /** The last look before sleeping; true when there is more to do. */
  finalCheck(): boolean {
    return !this.isBroken && this.ring.finalCheck();
  }

  /** Copies the next request out of the ring and judges it. False when there is none. */
  takeInto(job: Job): boolean {
    if (this.isBroken) return false;
    const pending = this.ring.pendingRequests();
    if (pending === RING_BROKEN) {
      // "Frontend provided bogus ring requests": Linux stops serving the ring and says nothing.
      this.isBroken = true;
      return false;
    }
    if (pending === 0) return false;
    const at = this.ring.requestOffset(0);
    const { view } = this.ring;
    decodeRequest(view, at, this.layout, job.request);
    job.idLow = view.getUint32(at + this.layout.id, true);
    job.idHigh = view.getUint32(at + this.layout.id + 4, true);
    this.ring.consume(1);
    job.operation = job.request.operation;
    job.segmentCount = 0;
    job.sectorCount = 0;
    job.mappedCount = 0;
    job.status = this.judge(job);
    this.stats.requests += 1;
    return true;
  }

  /** Moves the data of a job that was found good. */
  execute(job: Job): void {
    if (job.status !== BlkifStatus.BLKIF_RSP_OKAY) return;
    const { stats, disk } = this;
    const offsetBytes = job.request.firstSector * RING_SECTOR_BYTES;
    let isDone = true;
    switch (job.operation) {
      case BlkifOp.BLKIF_OP_READ:
        isDone = this.transfer(job, offsetBytes, true);
        stats.reads += 1;
        stats.readBytes += job.sectorCount * RING_SECTOR_BYTES;
        break;
      case BlkifOp.BLKIF_OP_WRITE:
        isDone = this.transfer(job, offsetBytes, false);
        stats.writes += 1;
        stats.writtenBytes += job.sectorCount * RING_SECTOR_BYTES;
        break;
      case BlkifOp.BLKIF_OP_WRITE_BARRIER:
      case BlkifOp.BLKIF_OP_FLUSH_DISKCACHE:
        // REQ_PREFLUSH: what came before is made durable, the request's own data is not.
        isDone = disk.flush() && this.transfer(job, offsetBytes, false);
        stats.flushes += 1;
        stats.writtenBytes += job.sectorCount * RING_SECTOR_BYTES;
        break;
      default:
        isDone = disk.discard(offsetBytes, job.request.discardSectorCount * RING_SECTOR_BYTES);
        stats.discards += 1;
    }
    if (!isDone) job.status = BlkifStatus.BLKIF_RSP_ERROR;
  }

  /** Gives the pages back and fills in the response. */
  answer(job: Job): void {
    this.unmap(job);
    if (job.status !== BlkifStatus.BLKIF_RSP_OKAY) this.stats.errors += 1;
    const at = this.ring.reserveSlot();
    const { view } = this.ring;
    encodeResponse(view, at, this.layout, 0, job.operation, job.status);
    view.setUint32(at, job.idLow, true);
    view.setUint32(at + 4, job.idHigh, true);
  }

  /** Unmaps the pages of a job that will never be answered. */
  abandon(job: Job): void {
    this.unmap(job);
  }

  /** Unmaps every page that was kept, at the end of the connection. */
  releaseKept(): void {
    for (let gref = 0; gref < this.kept.length && this.keptCount > 0; gref++) {
      if (this.kept[gref] === 0) continue;
      this.kept[gref] = 0;
      this.keptCount -= 1;
      this.grants.unmap(gref);
    }
  }

  /** Pages that stay mapped between requests. */
  get keptPages(): number {
    return this.keptCount;
  }

  // --- judging: dispatch_rw_block_io, dispatch_discard_io, dispatch_other_io

  private judge(job: Job): number {
    const { features } = this;
    switch (job.request.operation) {
      case BlkifOp.BLKIF_OP_READ:
      case BlkifOp.BLKIF_OP_WRITE:
        return this.judgeDirect(job);
      case BlkifOp.BLKIF_OP_WRITE_BARRIER:
        return features.barrier ? this.judgeDirect(job) : BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
      case BlkifOp.BLKIF_OP_FLUSH_DISKCACHE:
        return features.flush ? this.judgeDirect(job) : BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
      case BlkifOp.BLKIF_OP_DISCARD:
        return this.judgeDiscard(job);
      case BlkifOp.BLKIF_OP_INDIRECT:
        return features.indirect > 0 ? this.judgeIndirect(job) : BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
      default:
        return BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
    }
  }

  private judgeDirect(job: Job): number {
    const { request } = job;
    job.useDirectSegments();
    const count = request.segmentCount;
    const mayBeEmpty =
      request.operation === BlkifOp.BLKIF_OP_WRITE_BARRIER ||
      request.operation === BlkifOp.BLKIF_OP_FLUSH_DISKCACHE;
    if (count === 0 && !mayBeEmpty) return BlkifStatus.BLKIF_RSP_ERROR;
    if (count > BLKIF_MAX_SEGMENTS_PER_REQUEST) return BlkifStatus.BLKIF_RSP_ERROR;
    return this.judgeSegments(job, count);
  }

  private judgeIndirect(job: Job): number {
    const { request } = job;
    const count = request.segmentCount;
    const inner = request.indirectOperation;
    // The response names the inner operation, also when that is what is wrong.
    job.operation = inner;
    if (inner !== BlkifOp.BLKIF_OP_READ && inner !== BlkifOp.BLKIF_OP_WRITE) {
      return BlkifStatus.BLKIF_RSP_ERROR;
    }
    if (count === 0 || count > this.features.indirect) return BlkifStatus.BLKIF_RSP_ERROR;
    job.useIndirectSegments();
    for (let done = 0, page = 0; done < count; done += SEGMENTS_PER_INDIRECT_PAGE, page++) {
      const gref = request.indirectGrefs[page] as number;
      const offset = this.map(gref, this.features.persistent);
      if (offset < 0) return BlkifStatus.BLKIF_RSP_ERROR;
      decodeSegments(
        this.grants.view,
        offset,
        Math.min(SEGMENTS_PER_INDIRECT_PAGE, count - done),
        job.grefs,
        job.firstSectors,
        job.lastSectors,
        done,
      );
      this.unmapUnlessKept(gref);
    }
    return this.judgeSegments(job, count);
  }

  private judgeSegments(job: Job, count: number): number {
    const { firstSectors, lastSectors } = job;
    const { alignmentMask } = this;
    let sectors = 0;
    let lengths = 0;
    for (let index = 0; index < count; index++) {
      const first = firstSectors[index] as number;
      const last = lastSectors[index] as number;
      if (last >= RING_SECTORS_PER_PAGE || last < first) return BlkifStatus.BLKIF_RSP_ERROR;
      sectors += last - first + 1;
      lengths |= last - first + 1;
    }
    const isRead = job.operation === BlkifOp.BLKIF_OP_READ;
    const { firstSector } = job.request;
    if (!this.isWithinDisk(firstSector, sectors, isRead)) return BlkifStatus.BLKIF_RSP_ERROR;
    if (count > 0 && ((firstSector & alignmentMask) | (lengths & alignmentMask)) !== 0) {
      return BlkifStatus.BLKIF_RSP_ERROR;
    }
    if (!this.mapSegments(job, count, isRead)) return BlkifStatus.BLKIF_RSP_ERROR;
    job.segmentCount = count;
    job.sectorCount = sectors;
    return BlkifStatus.BLKIF_RSP_OKAY;
  }

  private judgeDiscard(job: Job): number {
    const { firstSector, discardSectorCount } = job.request;
    if (!this.isWithinDisk(firstSector, discardSectorCount, false)) {
      return BlkifStatus.BLKIF_RSP_ERROR;
    }
    if (!this.features.discard) return BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
    const misaligned =
      (firstSector & this.alignmentMask) | (discardSectorCount & this.alignmentMask);
    // blkdev_issue_discard gives EINVAL for both.
    if (discardSectorCount === 0 || misaligned !== 0) return BlkifStatus.BLKIF_RSP_ERROR;
    return BlkifStatus.BLKIF_RSP_OKAY;
  }

  /** xen_vbd_translate: also refuses a flush of a read-only disk, since that is a kind of write. */
  private isWithinDisk(firstSector: number, sectors: number, isRead: boolean): boolean {
    if (!isRead && this.features.readOnly) return false;
    if (sectors === 0) return true;
    // Negative is a number that was too large to be exact.
    return firstSector >= 0 && sectors > 0 && firstSector + sectors <= this.disk.sectors;
  }

  // --- pages

  private mapSegments(job: Job, count: number, isRead: boolean): boolean {
    const { grefs, pageOffsets } = job;
    for (let index = 0; index < count; index++) {
      // A read writes to the page. Persistent grants are used for both, so they are all writable.
      const offset = this.map(grefs[index] as number, isRead || this.features.persistent);
      if (offset < 0) {
        this.unmap(job);
        return false;
      }
      pageOffsets[index] = offset;
      job.mappedCount = index + 1;
    }
    return true;
  }

  private map(gref: number, forWriting: boolean): number {
    const { kept } = this;
    if (gref < kept.length) {
      const offset = kept[gref] as number;
      if (offset !== 0) return offset - 1;
    }
    const offset = this.grants.map(gref, forWriting);
    if (offset >= 0 && gref < kept.length && this.keptCount < MAX_PERSISTENT_GRANTS) {
      kept[gref] = offset + 1;
      this.keptCount += 1;
    }
    return offset;
  }

  private unmapUnlessKept(gref: number): void {
    if (gref < this.kept.length && this.kept[gref] !== 0) return;
    this.grants.unmap(gref);
  }

  private unmap(job: Job): void {
    for (let index = 0; index < job.mappedCount; index++) {
      this.unmapUnlessKept(job.grefs[index] as number);
    }
    job.mappedCount = 0;
  }

  /** Moves the data between the disk and the pages, as many segments per call as one call takes. */
  private transfer(job: Job, offsetBytes: number, isRead: boolean): boolean {
    const { iovecs, disk } = this;
    const { firstSectors, lastSectors, pageOffsets } = job;
    const { pagesAddress } = this.grants;
    let at = offsetBytes;
    iovecs.clear();
    for (let index = 0; index < job.segmentCount; index++) {
      if (iovecs.isFull) {
        if (!(isRead ? disk.read(iovecs, at) : disk.write(iovecs, at))) return false;
        at += iovecs.lengthBytes;
        iovecs.clear();
      }
      const first = firstSectors[index] as number;
      const sectors = (lastSectors[index] as number) - first + 1;
      iovecs.add(
        pagesAddress + (pageOffsets[index] as number) + first * RING_SECTOR_BYTES,
        sectors * RING_SECTOR_BYTES,
      );
    }
    if (iovecs.count === 0) return true;
    return isRead ? disk.read(iovecs, at) : disk.write(iovecs, at);
  }
}
