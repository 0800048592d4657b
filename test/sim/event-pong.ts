/** The other thread of the event channel's stress test: word 1 of the memory follows word 0. */

import { parentPort, workerData } from 'node:worker_threads';
import type { EventChannelHandle } from '../../src/host/index.ts';
import { openEventChannel } from '../../src/sim/event-channel.ts';
import { EPOLLIN, Epoll } from '../../src/sys/index.ts';

export interface PongSetup {
  readonly handle: EventChannelHandle;
  readonly rounds: number;
  readonly shared: SharedArrayBuffer;
}

export interface PongReport {
  readonly lastSeen: number;
}

const { handle, rounds, shared } = workerData as PongSetup;
const words = new Int32Array(shared);
const channel = openEventChannel(handle);
const epoll = new Epoll(2);
epoll.add(channel.fd, EPOLLIN, 1);
let seen = 0;
for (let turn = 0; seen < rounds; turn++) {
  if (epoll.wait(30_000) === 0) break;
  channel.consume();
  // Both correct loops: with the shortcut and without.
  if (turn % 2 === 0) channel.discardPending();
  for (let now = Atomics.load(words, 0); now !== seen; now = Atomics.load(words, 0)) {
    seen = now;
    Atomics.store(words, 1, seen);
    channel.notify();
  }
  channel.unmask();
}
epoll.close();
parentPort?.postMessage({ lastSeen: seen } satisfies PongReport);
