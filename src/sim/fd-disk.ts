/**
 * A disk that is a file descriptor: an ordinary file, or a memfd that stands for a RAM disk. Data
 * goes straight between the file and the pages of the front end. For any thread.
 */

import { libc } from '../sys/index.ts';
import type { EngineDisk } from './blkback-engine.ts';
import type { IovecList } from './iovec-list.ts';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

export class FdDisk implements EngineDisk {
  sectors: number;
  private readonly fd: number;

  constructor(fd: number, sectors: number) {
    this.fd = fd;
    this.sectors = sectors;
  }

  read(into: IovecList, offsetBytes: number): boolean {
    // A short read is the end of a file that somebody else has cut: an error, as on a disk.
    return libc.preadv(this.fd, into.address, into.count, offsetBytes) === into.lengthBytes;
  }

  write(from: IovecList, offsetBytes: number): boolean {
    return libc.pwritev(this.fd, from.address, from.count, offsetBytes) === from.lengthBytes;
  }

  flush(): boolean {
    return libc.fdatasync(this.fd) === 0;
  }

  discard(offsetBytes: number, lengthBytes: number): boolean {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return libc.fallocate(this.fd, mode, offsetBytes, lengthBytes) === 0;
  }
}
