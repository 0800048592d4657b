/**
 * The format of a trace. One line of JSON, {@link TraceHeader}, and then records of 36 bytes, in
 * the order in which replies were ready within a lane, little-endian:
 *
 *   offset  type  what
 *   0       f64   when the reply was ready, as Unix time in ms
 *   8       u64   offset in bytes
 *   16      u32   length in bytes
 *   20      f32   latency in ms
 *   24      u32   number of the client, as in the log
 *   28      u16   NBD command: 0 read, 1 write, 3 flush, 4 trim, 5 cache, 6 zeroes, 7 block status
 *   30      u16   NBD error number of the reply, 0 for none
 *   32      u16   position of the vbd in the header
 *   34      u16   0
 *
 * A record of command 0xffff tells how many requests could not be recorded, as its length.
 */

/** Bytes of a record. */
export const RECORD_BYTES = 36;
/** The command of a record that stands for others. */
export const COMMAND_DROPPED = 0xffff;

export const FORMAT_NAME = 'xenblk-nbd-trace';
export const FORMAT_VERSION = 1;

/** The first line. */
export interface TraceHeader {
  readonly format: typeof FORMAT_NAME;
  readonly version: typeof FORMAT_VERSION;
  /** Unix time in ms. */
  readonly startedMs: number;
  /** Names of the vbds. */
  readonly vbds: readonly string[];
}
