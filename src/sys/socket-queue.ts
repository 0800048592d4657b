/** What the kernel holds of a stream that was sent and not taken (SIOCOUTQ of tcp(7), unix(7)). */

import { libc } from './libc.ts';
import { allocateMemory, PAGE_SIZE } from './memory.ts';

const SIOCOUTQ = 0x5411;

const answer = allocateMemory(PAGE_SIZE);
const count = new Int32Array(answer.buffer, 0, 1);

/** Bytes that the other end has not taken yet, or more; 0 where the kernel does not tell. */
export function untakenBytesOf(fd: number): number {
  return libc.ioctl(fd, SIOCOUTQ, answer.address) < 0 ? 0 : (count[0] ?? 0);
}
