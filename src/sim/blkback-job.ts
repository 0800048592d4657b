/** A block request on its way through a back end's engine; see blkback-engine.ts for the way. */

import {
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  type BlkifRequest,
  BlkifStatus,
  createRequest,
} from '../blkif/index.ts';

/** A request on its way through the engine. */
export class Job {
  readonly request: BlkifRequest = createRequest();
  /** The id as it came, for the response: the engine gives it no meaning. */
  idLow = 0;
  idHigh = 0;
  /** What the response says: for an indirect request the operation inside it. */
  operation = 0;
  status: number = BlkifStatus.BLKIF_RSP_OKAY;
  /** Segments that passed the checks, with their pages mapped. */
  segmentCount = 0;
  sectorCount = 0;
  grefs: Uint32Array;
  firstSectors: Uint8Array;
  lastSectors: Uint8Array;
  /** Offsets of the mapped pages. */
  readonly pageOffsets: Uint32Array;
  /** How many of the pages are mapped. */
  mappedCount = 0;
  private readonly indirectGrefs: Uint32Array;
  private readonly indirectFirstSectors: Uint8Array;
  private readonly indirectLastSectors: Uint8Array;

  /** @param maxSegments most segments that the engine accepts in a request. */
  constructor(maxSegments: number) {
    const room = Math.max(maxSegments, BLKIF_MAX_SEGMENTS_PER_REQUEST);
    this.indirectGrefs = new Uint32Array(room);
    this.indirectFirstSectors = new Uint8Array(room);
    this.indirectLastSectors = new Uint8Array(room);
    this.pageOffsets = new Uint32Array(room);
    this.grefs = this.request.segmentGrefs;
    this.firstSectors = this.request.segmentFirstSectors;
    this.lastSectors = this.request.segmentLastSectors;
  }

  useDirectSegments(): void {
    this.grefs = this.request.segmentGrefs;
    this.firstSectors = this.request.segmentFirstSectors;
    this.lastSectors = this.request.segmentLastSectors;
  }

  useIndirectSegments(): void {
    this.grefs = this.indirectGrefs;
    this.firstSectors = this.indirectFirstSectors;
    this.lastSectors = this.indirectLastSectors;
  }
}
