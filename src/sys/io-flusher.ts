/** How the kernel finds memory for us when there is little (prctl(2), PR_SET_IO_FLUSHER). */

import { libc } from './libc.ts';

const PR_SET_IO_FLUSHER = 57;

/**
 * Says that the calling thread, and those it starts from now on, write out what others have made
 * dirty. To find memory for such a thread the kernel does not wait for file systems or disks: one
 * of them may be mounted from the very disk that it serves, and then each would wait for the other.
 *
 * Returns false when it is not allowed, for want of CAP_SYS_RESOURCE or on a kernel before 5.6.
 */
export function becomeIoFlusher(): boolean {
  return libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) === 0;
}
