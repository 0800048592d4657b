/**
 * A backend on the other end of a ring, in this thread: takes requests when it is stepped, in an
 * order that a seeded random source decides, and keeps the disk in an array. For tests of the
 * engine; the honest backend is in src/sim.
 */

import {
  BackRing,
  type BlkifAbi,
  BlkifOp,
  BlkifStatus,
  blkifLayout,
  createRequest,
  createRingArea,
  decodeRequest,
  decodeSegments,
  encodeResponse,
} from '../../src/blkif/index.ts';
import { PAGE_SIZE, viewMemory } from '../../src/sys/index.ts';
import type { SeededRandom } from './random.ts';

interface Waiting {
  readonly id: number;
  readonly operation: number;
  readonly firstSector: number;
  readonly discardSectors: number;
  readonly segments: readonly {
    readonly gref: number;
    readonly first: number;
    readonly last: number;
  }[];
}

export class ModelBackend {
  readonly disk: Uint8Array;
  /** Grant reference n is the page n pages behind this address. */
  readonly #grantBase: number;
  readonly #ring: BackRing;
  readonly #abi: BlkifAbi;
  readonly #random: SeededRandom;
  readonly #waiting: Waiting[] = [];
  /** Chance of an error for a data request. */
  errorRate = 0;
  /** A sector that cannot be read or written, in units of 512 bytes. */
  badSector: number | undefined;
  /** Operations that it says it does not know. */
  refused: readonly number[] = [];
  /** Operations that it answers with an error. */
  failed: readonly number[] = [];
  flushes = 0;
  requests = 0;

  constructor(
    ring: { ringAddress: number; ringPageCount: number; abi: BlkifAbi },
    grantBase: number,
    sizeBytes: number,
    random: SeededRandom,
  ) {
    const { ringAddress, ringPageCount, abi } = ring;
    this.disk = new Uint8Array(sizeBytes);
    this.#grantBase = grantBase;
    this.#abi = abi;
    this.#random = random;
    const buffer = viewMemory(ringAddress, ringPageCount * PAGE_SIZE);
    this.#ring = BackRing.attach(createRingArea({ buffer, offsetBytes: 0, ringPageCount, abi }));
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Takes what is on the ring, then answers up to `count` of the requests it holds. */
  step(count: number): void {
    this.#fetch();
    for (let i = 0; i < count && this.#waiting.length > 0; i++) {
      const [request] = this.#waiting.splice(this.#random.below(this.#waiting.length), 1);
      if (request !== undefined) this.#answer(request);
    }
    this.#ring.publish();
  }

  #page(gref: number, offset: number, length: number): ArrayBuffer {
    return viewMemory(this.#grantBase + gref * PAGE_SIZE + offset, length);
  }

  #fetch(): void {
    const layout = blkifLayout(this.#abi);
    const record = createRequest();
    const pending = this.#ring.pendingRequests();
    for (let i = 0; i < pending; i++) {
      decodeRequest(this.#ring.view, this.#ring.requestOffset(0), layout, record);
      this.#ring.consume(1);
      this.requests += 1;
      const isIndirect = record.operation === BlkifOp.BLKIF_OP_INDIRECT;
      const count = record.segmentCount;
      let { segmentGrefs, segmentFirstSectors, segmentLastSectors } = record;
      if (isIndirect) {
        segmentGrefs = new Uint32Array(count);
        segmentFirstSectors = new Uint8Array(count);
        segmentLastSectors = new Uint8Array(count);
        const list = this.#page(record.indirectGrefs[0] ?? 0, 0, PAGE_SIZE);
        decodeSegments(
          new DataView(list),
          0,
          count,
          segmentGrefs,
          segmentFirstSectors,
          segmentLastSectors,
          0,
        );
      }
      this.#waiting.push({
        id: record.id,
        operation: isIndirect ? record.indirectOperation : record.operation,
        firstSector: record.firstSector,
        discardSectors: record.discardSectorCount,
        segments: Array.from({ length: count }, (_, index) => ({
          gref: segmentGrefs[index] ?? 0,
          first: segmentFirstSectors[index] ?? 0,
          last: segmentLastSectors[index] ?? 0,
        })),
      });
    }
  }

  #answer(request: Waiting): void {
    const status = this.#execute(request);
    const at = this.#ring.reserveSlot();
    encodeResponse(
      this.#ring.view,
      at,
      blkifLayout(this.#abi),
      request.id,
      request.operation,
      status,
    );
  }

  #execute(request: Waiting): BlkifStatus {
    if (this.refused.includes(request.operation)) return BlkifStatus.BLKIF_RSP_EOPNOTSUPP;
    if (this.failed.includes(request.operation)) return BlkifStatus.BLKIF_RSP_ERROR;
    const isBarrier = request.operation === BlkifOp.BLKIF_OP_WRITE_BARRIER;
    if (isBarrier || request.operation === BlkifOp.BLKIF_OP_FLUSH_DISKCACHE) {
      this.flushes += 1;
      return BlkifStatus.BLKIF_RSP_OKAY;
    }
    let at = request.firstSector * 512;
    if (request.operation === BlkifOp.BLKIF_OP_DISCARD) {
      this.disk.fill(0xdd, at, at + request.discardSectors * 512);
      return BlkifStatus.BLKIF_RSP_OKAY;
    }
    if (this.#random.chance(this.errorRate)) return BlkifStatus.BLKIF_RSP_ERROR;
    for (const { gref, first, last } of request.segments) {
      const length = (last - first + 1) * 512;
      const page = new Uint8Array(this.#page(gref, first * 512, length));
      if (at + length > this.disk.length) return BlkifStatus.BLKIF_RSP_ERROR;
      const bad = (this.badSector ?? -1) * 512;
      if (at <= bad && bad < at + length) return BlkifStatus.BLKIF_RSP_ERROR;
      if (request.operation === BlkifOp.BLKIF_OP_READ)
        page.set(this.disk.subarray(at, at + length));
      else this.disk.set(page, at);
      at += length;
    }
    return BlkifStatus.BLKIF_RSP_OKAY;
  }
}
