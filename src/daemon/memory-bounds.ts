/** How much memory this process may take, for whoever sizes a guest or a cgroup. */

import { RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES } from '../dataplane/index.ts';
import { PAGE_SIZE } from '../sys/index.ts';
import type { AttachmentSummary } from './attachment-shape.ts';
import type { LogDetails } from './log.ts';
import type { ClientLimits } from './serve-options.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/**
 * The bounds, beside what Node itself needs.
 *
 * @param isIoFlusher see becomeIoFlusher of src/sys
 */
export function describeMemory(
  vbds: readonly AttachmentSummary[],
  limits: ClientLimits,
  isIoFlusher: boolean,
): { readonly details: LogDetails; readonly message: string } {
  const grantedBytes = sum(vbds, ({ grantedPageCount }) => grantedPageCount) * PAGE_SIZE;
  const slots = sum(vbds, ({ slotCount }) => slotCount);
  const buffersBytes = sum(vbds, ({ ringCount }) => ringCount) * limits.bufferBytes;
  const flusher = isIoFlusher
    ? 'the kernel does not wait for disks to find it'
    : 'CAP_SYS_RESOURCE is missing for a disk that is mounted here and written much';
  return {
    details: {
      grantedBytes,
      slots,
      buffersBytes,
      clientBytes: RECEIVE_BUFFER_BYTES,
      clientSocketBytes: SEND_BUFFER_BYTES,
      ioFlusher: isIoFlusher,
    },
    message:
      `memory, at most: ${inMib(grantedBytes)} MiB granted for ${slots} slots, ` +
      `${inMib(buffersBytes)} MiB for large reads, ${RECEIVE_BUFFER_BYTES / KIB} KiB for each ` +
      `client, and ${SEND_BUFFER_BYTES / MIB} MiB in its socket; ${flusher}`,
  };
}

function sum<T>(items: readonly T[], amountOf: (item: T) => number): number {
  return items.reduce((total, item) => total + amountOf(item), 0);
}

function inMib(lengthBytes: number): string {
  return (lengthBytes / MIB).toFixed(1).replace('.0', '');
}
