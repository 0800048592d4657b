/** How the kernel shares the processors out among threads: sched(7). */

import { libc } from './libc.ts';
import { allocateMemory, unmapMemory } from './memory.ts';

const SCHED_BATCH = 3;
const THIS_THREAD = 0;

/**
 * Puts the calling thread under SCHED_BATCH, which any user may: woken on a busy processor, it
 * waits for its turn instead of interrupting whoever runs there. On an idle one it starts as soon
 * as ever. For a thread that deals with everything that has come in whenever it runs, this makes
 * batches larger where processors are scarce, and costs nothing where they are not.
 *
 * Returns false when it is not allowed, as under some seccomp filters; then nothing has changed.
 */
export function scheduleInBatches(): boolean {
  // struct sched_param {int sched_priority}, which is 0 for all policies but the real-time ones.
  const parameter = allocateMemory(4);
  const isDone = libc.schedSetscheduler(THIS_THREAD, SCHED_BATCH, parameter.address) === 0;
  unmapMemory(parameter.address, parameter.lengthBytes);
  return isDone;
}
