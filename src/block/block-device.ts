/** What `connect` gives: a block device with the meaning of MirageOS's Block module. */

import type { BlockResult, BlockWriteResult } from './block-error.ts';

/** What a device is. */
export interface BlockInfo {
  /** Whether it can be written. */
  readonly readWrite: boolean;
  /** Bytes of a sector: 512 to 4096. Everything is read and written in whole sectors. */
  readonly sectorSize: number;
  /** Sectors of the device. It may grow while it is connected. */
  readonly sizeSectors: bigint;
}

/**
 * A Xen virtual block device. It keeps the process alive until {@link BlockDevice.disconnect}, as a
 * socket does.
 *
 * Any number of operations may be in progress at once, and they may end in any order; who needs an
 * order waits for the result of one before starting the next. An operation cannot be cancelled and
 * has no timeout: when the back end goes away, operations wait for its return, and are then asked
 * again. Buffers belong to an operation from the call until it ends, and must not be changed or
 * used for another meanwhile.
 *
 * Wrong arguments are faults of the program: the promise rejects with a TypeError or a RangeError,
 * before anything is asked of the back end. What can happen to a correct program is a result.
 */
export interface BlockDevice {
  /** What the device is now. Works also when it is disconnected: then what it was last. */
  getInfo(): Promise<BlockInfo>;

  /**
   * Reads from sector `sectorStart` on into `buffers`, one after the other. The list can be of any
   * length; each buffer is a whole number of sectors. `ok` means that all are filled; otherwise
   * some of them may be filled, or a part of one.
   */
  read(sectorStart: bigint | number, buffers: readonly Uint8Array[]): Promise<BlockResult>;

  /**
   * Writes `buffers`, one after the other, from sector `sectorStart` on. The list can be of any
   * length; each buffer is a whole number of sectors. `ok` means that all were written, though they
   * may still be in a cache of the disk: see {@link BlockDevice.flush}. Otherwise some of the
   * sectors may have been written and others not; after `IsReadOnly` none was.
   */
  write(sectorStart: bigint | number, buffers: readonly Uint8Array[]): Promise<BlockWriteResult>;

  /**
   * Makes everything stable whose write had answered `ok` before this call. A disk without a cache
   * has nothing to do.
   */
  flush(): Promise<BlockResult>;

  /**
   * Ends the connection so that another front end, or the kernel, can attach. Operations in
   * progress may end first; what cannot, and what is started later, ends with `Disconnected`. It
   * does not flush. It may take time and never fails; calling it again waits for the same end.
   */
  disconnect(): Promise<void>;

  /**
   * Zeroed memory of `pageCount` pages of 4096 bytes that is granted to the back end: reads and
   * writes with this buffer, or whole sectors of it, are done without a copy. A guest may grant
   * few pages (1024 unless somebody raised the limit), so they are for using again and again. When
   * the grant ends, by `releasePages`, `disconnect` or a restore of the guest, the buffer keeps its
   * bytes and is one like any other. It must not be transferred to another thread, which would
   * find it emptied at some time.
   *
   * @throws RangeError for no whole number of pages; HostError `LIMIT` when there are too few;
   *   Error when the device is disconnected.
   */
  allocatePages(pageCount: number): Buffer;

  /**
   * Ends the grant of a buffer of {@link BlockDevice.allocatePages}, for others to have pages.
   *
   * @throws RangeError when the buffer is none of this device, or an operation uses it.
   */
  releasePages(buffer: Uint8Array): void;
}
