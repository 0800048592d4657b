/** Memory at fixed addresses, mapped with mmap(2). */

import { SysError } from './errno.ts';
import { errno, libc, viewMemory } from './libc.ts';

/** Bytes of a page, which is also what Xen grants. */
export const PAGE_SIZE = 4096;

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
/** In the first 2 GiB; of x86-64 only. */
const MAP_32BIT = 0x40;
const MADV_DONTNEED = 4;
/** Larger pieces would use that space up. */
const LOW_BYTES_MAX = 16 * 1024 * 1024;

const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** A piece of memory at a fixed address, which system calls can be pointed at. */
export interface Memory {
  readonly address: number;
  readonly lengthBytes: number;
  readonly buffer: ArrayBuffer;
}

/** Maps `lengthBytes` of zeroed private memory, for the life of the process unless unmapped. */
export function allocateMemory(lengthBytes: number): Memory {
  return mapped(lengthBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/**
 * The address of zeroed private memory, for system calls alone. It has no view, so that it can be
 * mapped and unmapped in a lane as often as need be: what belongs to a view is given back by Node's
 * event loop, which does not turn there.
 */
export function mapPrivate(lengthBytes: number): number {
  return map(lengthBytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/** Maps a file or device shared with others, readable and writable. */
export function mapShared(fd: number, offset: number, lengthBytes: number): Memory {
  return mapped(lengthBytes, MAP_SHARED, fd, offset);
}

/**
 * Addresses below 2^31 are small integers to V8. Any other that is computed and handed to a system
 * call is an object made for that call, and lanes are to make none.
 */
function map(lengthBytes: number, flags: number, fd: number, offset: number): number {
  const attempt = (more: number): number | bigint =>
    libc.mmap(0, lengthBytes, PROT_READ | PROT_WRITE, flags | more, fd, offset);
  const isLow = process.arch === 'x64' && lengthBytes <= LOW_BYTES_MAX;
  const low = isLow ? attempt(MAP_32BIT) : MAP_FAILED;
  const address = typeof low === 'bigint' ? attempt(0) : low;
  // MAP_FAILED is the largest address, the only result that does not fit a Number.
  if (typeof address === 'bigint') throw new SysError('mmap', errno());
  return address;
}

function mapped(lengthBytes: number, flags: number, fd: number, offset: number): Memory {
  const address = map(lengthBytes, flags, fd, offset);
  return { address, lengthBytes, buffer: viewMemory(address, lengthBytes) };
}

/**
 * Puts private memory in the place of whatever is mapped at `address`, with the same bytes. Views
 * of it stay good; nobody else sees them any more.
 */
export function makePrivate(address: number, lengthBytes: number): void {
  const copy = allocateMemory(lengthBytes);
  libc.memcpy(copy.address, address, lengthBytes);
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  const result = libc.mmap(address, lengthBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (typeof result === 'bigint') throw new SysError('mmap', errno());
  libc.memcpy(address, copy.address, lengthBytes);
  unmapMemory(copy.address, lengthBytes);
}

/**
 * Gives the kernel back what private memory occupies. It stays mapped and reads as zeroes, so that
 * a view which somebody still has does no harm.
 */
export function emptyMemory(address: number, lengthBytes: number): void {
  if (libc.madvise(address, lengthBytes, MADV_DONTNEED) !== 0) {
    throw new SysError('madvise', errno());
  }
}

/** Unmaps. Whoever still holds a view and touches it crashes the process: call it last. */
export function unmapMemory(address: number, lengthBytes: number): void {
  if (libc.munmap(address, lengthBytes) !== 0) throw new SysError('munmap', errno());
}
