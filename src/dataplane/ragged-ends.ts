/**
 * Ranges on the grid of the disk's sectors, and the sectors at their ends that a client covers in
 * part. Such a sector is read into a page of its own (`headPage`, `tailPage`), at the page's
 * beginning; a write takes the bytes around its payload from there, and a zeroing patches it there
 * and writes it back.
 */

import { libc, PAGE_SIZE } from '../sys/index.ts';
import type { DiskShape } from './lane-config.ts';
import type { Operation } from './operation.ts';
import { giveBackEdges } from './operation-pages.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';

/** Sets the whole sectors that cover what the client asked for. */
export function setGrid(operation: Operation, sectorBytes: number): void {
  const end = operation.offset + operation.lengthBytes;
  operation.firstByte = Math.floor(operation.offset / sectorBytes) * sectorBytes;
  operation.skewBytes = (operation.offset - operation.firstByte) | 0;
  operation.gridBytes = Math.ceil(end / sectorBytes) * sectorBytes - operation.firstByte;
  operation.isRagged = operation.skewBytes !== 0 || end % sectorBytes !== 0;
}

/** A trim is rounded inward: only whole blocks that the client named may lose their content. */
export function setDiscardRange(operation: Operation, disk: DiskShape): void {
  const { sectorBytes, discard } = disk;
  operation.gridBytes = 0;
  if (discard === undefined) return;
  const block = Math.max(sectorBytes, discard.granularityBytes);
  const shift = discard.alignmentBytes % block;
  const end = operation.offset + operation.lengthBytes;
  operation.firstByte = Math.ceil((operation.offset - shift) / block) * block + shift;
  const endByte = Math.floor((end - shift) / block) * block + shift;
  operation.gridBytes = Math.max(0, endByte - operation.firstByte);
}

/** Whether the last sector is covered in part. */
export function hasRaggedEnd(operation: Operation, sectorBytes: number): boolean {
  return (operation.skewBytes + operation.lengthBytes) % sectorBytes !== 0;
}

/** Takes pages for the ends; false when there are too few. */
export function allocateEdges(pool: PagePool, operation: Operation, sectorBytes: number): boolean {
  const hasHead = operation.skewBytes !== 0;
  // A single sector that is ragged at both ends is its own head and needs no tail.
  const isOneSector = hasHead && operation.gridBytes === sectorBytes;
  const hasTail = hasRaggedEnd(operation, sectorBytes) && !isOneSector;
  if (pool.freeCount < Number(hasHead) + Number(hasTail)) return false;
  if (hasHead) operation.headPage = pool.take();
  if (hasTail) operation.tailPage = pool.take();
  return true;
}

/** How many ends have a page. */
export function edgeCount(operation: Operation): number {
  return Number(operation.headPage !== NO_PAGE) + Number(operation.tailPage !== NO_PAGE);
}

/** Puts what is on disk before the payload in front of it. */
export function patchHead(pool: PagePool, operation: Operation): void {
  if (operation.headPage === NO_PAGE) return;
  const from = pool.addressOf(operation.headPage);
  libc.memcpy(pool.addressOf(operation.firstPage), from, operation.skewBytes);
}

/** Puts what is on disk behind the payload after it; the edges are not needed any more then. */
export function patchTail(pool: PagePool, operation: Operation, sectorBytes: number): void {
  const endBytes = operation.skewBytes + operation.lengthBytes;
  const keptBytes = operation.gridBytes - endBytes;
  const edgePage = operation.tailPage === NO_PAGE ? operation.headPage : operation.tailPage;
  if (keptBytes > 0) {
    const inSector = sectorBytes - keptBytes;
    const target = pool.addressOf(operation.lastPage) + (endBytes % PAGE_SIZE);
    libc.memcpy(target, pool.addressOf(edgePage) + inSector, keptBytes);
  }
  giveBackEdges(pool, operation);
}

/** Zeroes what a WRITE_ZEROES covers of the sectors at its ends. */
export function zeroEdges(pool: PagePool, operation: Operation, sectorBytes: number): void {
  const endBytes = operation.skewBytes + operation.lengthBytes;
  if (operation.headPage !== NO_PAGE) {
    const count = Math.min(endBytes, sectorBytes) - operation.skewBytes;
    libc.memset(pool.addressOf(operation.headPage) + operation.skewBytes, 0, count);
  }
  if (operation.tailPage !== NO_PAGE) {
    const count = endBytes - (operation.gridBytes - sectorBytes);
    libc.memset(pool.addressOf(operation.tailPage), 0, count);
  }
}
