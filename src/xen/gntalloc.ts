/**
 * Pages granted to another domain, through /dev/xen/gntalloc (drivers/xen/gntalloc.c,
 * include/uapi/xen/gntalloc.h).
 *
 *   ioctl_gntalloc_alloc_gref    u16 domid @0, u16 flags @2, u32 count @4, u64 index (out) @8,
 *                                u32 gref[count] (out) @16
 *   ioctl_gntalloc_dealloc_gref  u64 index @0, u32 count @8
 *
 * The number of ALLOC_GREF encodes the size of a struct with one gref; the kernel takes a longer
 * array all the same. The pages arrive zeroed, belong to one domain until they are freed, and are
 * mapped at the offset that `index` names. A page that the other domain still maps when it is freed
 * returns to the kernel only when that mapping ends.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type GrantAccess, type GrantBudget, type GrantedPages, HostError } from '../host/index.ts';
import {
  allocateMemory,
  closeFd,
  Errno,
  errno,
  libc,
  type Memory,
  makePrivate,
  mapShared,
  PAGE_SIZE,
  SysError,
  unmapMemory,
} from '../sys/index.ts';
import { openXenDevice, type XenPaths } from './device-file.ts';

export const IOCTL_GNTALLOC_ALLOC_GREF = 0x00184705;
export const IOCTL_GNTALLOC_DEALLOC_GREF = 0x00104706;

const GNTALLOC_FLAG_WRITABLE = 1;

const DEALLOC_BYTES = 16;

/** The kernel's own default, for the case that its file cannot be read. */
const DEFAULT_LIMIT_PAGES = 1024;

/** Length of the argument of ALLOC_GREF. */
export function allocGrefBytes(pageCount: number): number {
  return 16 + 4 * pageCount;
}

export function encodeAllocGref(
  view: DataView,
  domid: number,
  access: GrantAccess,
  pageCount: number,
): void {
  view.setUint16(0, domid, true);
  view.setUint16(2, access === 'read-write' ? GNTALLOC_FLAG_WRITABLE : 0, true);
  view.setUint32(4, pageCount, true);
  view.setBigUint64(8, 0n, true);
}

/** What the kernel wrote into the argument of ALLOC_GREF. */
export function decodeAllocGref(view: DataView): { index: bigint; grefs: Uint32Array } {
  const grefs = new Uint32Array(view.getUint32(4, true));
  for (let page = 0; page < grefs.length; page++) grefs[page] = view.getUint32(16 + 4 * page, true);
  return { index: view.getBigUint64(8, true), grefs };
}

export function encodeDeallocGref(view: DataView, index: bigint, pageCount: number): void {
  view.setBigUint64(0, index, true);
  view.setUint32(8, pageCount, true);
  view.setUint32(12, 0, true);
}

/** The guest's limit of granted pages: it counts the pages of all processes. */
export function readGrantBudget(paths: XenPaths): GrantBudget {
  const source = join(paths.sys, 'module/xen_gntalloc/parameters/limit');
  let text: string;
  try {
    text = readFileSync(source, 'utf8').trim();
  } catch {
    return { limitPages: DEFAULT_LIMIT_PAGES, source }; // Built in, or not loaded yet.
  }
  const limitPages = /^\d{1,10}$/.test(text) ? Number(text) : DEFAULT_LIMIT_PAGES;
  return { limitPages, source };
}

/** All grants of one process, on one descriptor. */
export class GrantAllocator {
  readonly #paths: XenPaths;
  readonly #held = new Set<GrantedPages>();
  #fd: number | undefined;

  constructor(paths: XenPaths) {
    this.#paths = paths;
  }

  /** @throws HostError `LIMIT` when the guest's limit of granted pages is reached */
  grant(domid: number, pageCount: number, access: GrantAccess): GrantedPages {
    if (!Number.isInteger(pageCount) || pageCount < 1) {
      throw new RangeError(`cannot grant ${pageCount} pages`);
    }
    this.#fd ??= openXenDevice(this.#paths, 'gntalloc');
    const fd = this.#fd;
    const { index, grefs } = this.#allocate(fd, domid, pageCount, access);

    let memory: Memory;
    try {
      memory = mapShared(fd, Number(index), pageCount * PAGE_SIZE);
    } catch (cause) {
      deallocate(fd, index, pageCount);
      throw new HostError('FAILED', `cannot map ${pageCount} granted pages: ${reasonOf(cause)}`, {
        cause,
      });
    }

    const end = (unmap: (address: number, lengthBytes: number) => void): void => {
      if (!this.#held.delete(pages)) throw new Error('these pages were revoked before');
      unmap(memory.address, memory.lengthBytes);
      deallocate(fd, index, pageCount);
    };
    const pages: GrantedPages = {
      address: memory.address,
      pageCount,
      grefs,
      revoke: () => end(unmapMemory),
      retire: () => end(makePrivate),
    };
    this.#held.add(pages);
    return pages;
  }

  /** Pages that are granted now. */
  get heldPages(): number {
    let count = 0;
    for (const { pageCount } of this.#held) count += pageCount;
    return count;
  }

  /** Revokes what is still granted. */
  close(): void {
    for (const pages of this.#held) pages.revoke();
    if (this.#fd !== undefined) closeFd(this.#fd);
    this.#fd = undefined;
  }

  #allocate(
    fd: number,
    domid: number,
    pageCount: number,
    access: GrantAccess,
  ): { index: bigint; grefs: Uint32Array } {
    const argument = allocateMemory(allocGrefBytes(pageCount));
    try {
      const view = new DataView(argument.buffer);
      encodeAllocGref(view, domid, access, pageCount);
      if (libc.ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, argument.address) !== 0) {
        throw this.#describeRefusal(domid, pageCount, errno());
      }
      return decodeAllocGref(view);
    } finally {
      unmapMemory(argument.address, argument.lengthBytes);
    }
  }

  #describeRefusal(domid: number, pageCount: number, number: number): HostError {
    const file = join(this.#paths.devXen, 'gntalloc');
    const cause = new SysError('ioctl ALLOC_GREF', number, file);
    const what = `cannot grant ${pageCount} more pages to domain ${domid}`;
    if (number !== Errno.ENOSPC) {
      return new HostError('FAILED', `${what}: ${cause.message}`, { cause });
    }
    const { limitPages, source } = readGrantBudget(this.#paths);
    return new HostError(
      'LIMIT',
      `${what} (ENOSPC from ${file}): this process holds ${this.heldPages}, and the guest's ` +
        `limit is ${limitPages}; raise it with: echo ${wantedLimit(limitPages, pageCount)} > ${source}`,
      { cause },
    );
  }
}

/** A limit that would let the request through, rounded up to a power of two. */
function wantedLimit(limitPages: number, pageCount: number): number {
  return 2 ** Math.ceil(Math.log2(limitPages + pageCount));
}

function deallocate(fd: number, index: bigint, pageCount: number): void {
  const argument = allocateMemory(DEALLOC_BYTES);
  encodeDeallocGref(new DataView(argument.buffer), index, pageCount);
  const result = libc.ioctl(fd, IOCTL_GNTALLOC_DEALLOC_GREF, argument.address);
  const number = errno();
  unmapMemory(argument.address, argument.lengthBytes);
  if (result !== 0) throw new SysError('ioctl DEALLOC_GREF', number);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
