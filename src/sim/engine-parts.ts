/** What a back end's engine works with; see blkback-engine.ts. */

import type { IovecList } from './iovec-list.ts';

/** Maps pages of the front end. Implemented by grant-map.ts. */
export interface GrantMapper {
  /** Address of the byte at offset 0 of {@link view}. */
  readonly pagesAddress: number;
  readonly view: DataView<ArrayBufferLike>;
  /** References are below this. */
  readonly grefLimit: number;
  /** The page's offset in {@link view}, or a negative number when it may not be mapped. */
  map(gref: number, forWriting: boolean): number;
  unmap(gref: number): void;
}

/** What a ring is served from. All offsets and lengths are bytes; false is a failure. */
export interface EngineDisk {
  /** Size in 512-byte units. May change between requests. */
  readonly sectors: number;
  read(into: IovecList, offsetBytes: number): boolean;
  write(from: IovecList, offsetBytes: number): boolean;
  /** Makes everything written before durable. */
  flush(): boolean;
  discard(offsetBytes: number, lengthBytes: number): boolean;
}

/** What this ring's device can do. */
export interface EngineFeatures {
  /** Logical block in bytes. */
  readonly sectorSize: number;
  readonly readOnly: boolean;
  /** Segments of an indirect request; 0 refuses the operation as unknown. */
  readonly indirect: number;
  readonly flush: boolean;
  readonly barrier: boolean;
  readonly discard: boolean;
  /** Grants stay mapped after their first use. Negotiated: both ends said so. */
  readonly persistent: boolean;
}
