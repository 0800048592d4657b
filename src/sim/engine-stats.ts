/** Counts of what the engines of a back end did. */

/** The counts; they only grow. */
export interface EngineStats {
  requests: number;
  reads: number;
  writes: number;
  flushes: number;
  discards: number;
  errors: number;
  readBytes: number;
  writtenBytes: number;
}

/** Counts that start at zero. */
export function createEngineStats(): EngineStats {
  return {
    requests: 0,
    reads: 0,
    writes: 0,
    flushes: 0,
    discards: 0,
    errors: 0,
    readBytes: 0,
    writtenBytes: 0,
  };
}
