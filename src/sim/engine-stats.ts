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

/** The sum of both. */
export function addEngineStats(one: EngineStats, other: EngineStats): EngineStats {
  return {
    requests: one.requests + other.requests,
    reads: one.reads + other.reads,
    writes: one.writes + other.writes,
    flushes: one.flushes + other.flushes,
    discards: one.discards + other.discards,
    errors: one.errors + other.errors,
    readBytes: one.readBytes + other.readBytes,
    writtenBytes: one.writtenBytes + other.writtenBytes,
  };
}
