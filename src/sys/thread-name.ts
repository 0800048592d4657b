/** Names for threads, for whoever looks at the process from outside. */

import { libc } from './libc.ts';
import { allocateMemory } from './memory.ts';

const PR_SET_NAME = 15;

/**
 * Names the calling thread, as seen in /proc/PID/task/TID/comm. At most 15 bytes; the kernel cuts
 * the rest.
 */
export function setThreadName(name: string): void {
  const memory = allocateMemory(16);
  const bytes = new Uint8Array(memory.buffer);
  new TextEncoder().encodeInto(name, bytes.subarray(0, 15));
  libc.prctl(PR_SET_NAME, memory.address, 0, 0, 0);
  libc.munmap(memory.address, memory.lengthBytes);
}
