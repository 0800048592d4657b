/** Puts what an operation has ready onto the ring, as far as there are slots. */

import { PAGE_SIZE } from '../sys/index.ts';
import { type Operation, Stage } from './operation.ts';
import { cutPages } from './operation-pages.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';
import { issuableBytes } from './payload.ts';
import { edgeCount } from './ragged-ends.ts';
import type { RingRequests } from './ring-requests.ts';

/** Returns false when slots ran out before the end; call it again when some have come back. */
export function issue(
  ring: RingRequests,
  pool: PagePool,
  operation: Operation,
  sectorBytes: number,
): boolean {
  switch (operation.stage) {
    case Stage.READ:
      return issueData(ring, pool, operation, operation.allocatedBytes);
    case Stage.WRITE: {
      const readyBytes = issuableBytes(operation, ring.maxSegments);
      return issueData(ring, pool, operation, operation.issuedBytes + readyBytes);
    }
    case Stage.EDGES:
    case Stage.ZERO_EDGES:
      return issueEdges(ring, operation, sectorBytes);
    case Stage.DISCARD:
      if (!ring.hasRoom) return false;
      ring.discard(operation);
      operation.issuedBytes = operation.gridBytes;
      return true;
    default:
      return true;
  }
}

function issueData(
  ring: RingRequests,
  pool: PagePool,
  operation: Operation,
  endBytes: number,
): boolean {
  const isRead = operation.stage === Stage.READ;
  while (operation.issuedBytes < endBytes) {
    const pages = Math.min(
      Math.ceil((endBytes - operation.issuedBytes) / PAGE_SIZE),
      ring.maxSegments,
    );
    if (!ring.hasRoomFor(pages)) return false;
    const lengthBytes = Math.min(endBytes - operation.issuedBytes, pages * PAGE_SIZE);
    const last = ring.transfer(operation, operation.issuePage, pages, lengthBytes);
    operation.issuePage = pool.next(last);
    operation.issuedBytes += lengthBytes;
    // A read's pages stay with it until they are sent; others belong to the part from now on.
    if (!isRead || operation.spillAddress !== 0) cutPages(operation, pages);
  }
  return true;
}

function issueEdges(ring: RingRequests, operation: Operation, sectorBytes: number): boolean {
  const isWrite = operation.stage === Stage.ZERO_EDGES;
  // A lost ring has free slots as well, in memory that may be gone.
  if (!ring.hasRoom || ring.freeSlots < edgeCount(operation)) return false;
  if (operation.headPage !== NO_PAGE) {
    ring.edge(operation, operation.headPage, operation.firstByte, sectorBytes, isWrite);
  }
  if (operation.tailPage !== NO_PAGE) {
    const lastSectorByte = operation.firstByte + operation.gridBytes - sectorBytes;
    ring.edge(operation, operation.tailPage, lastSectorByte, sectorBytes, isWrite);
  }
  return true;
}
