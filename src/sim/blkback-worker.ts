/**
 * The thread of simulated back ends. It sits in epoll_wait over the event channels of all rings it
 * serves and never returns to Node's event loop before it ends; so it must not print, and hears of
 * messages through an eventfd.
 */

import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import {
  BusyPoll,
  drainEventFd,
  ProcessorBinding,
  scheduleInBatches,
  setThreadName,
} from '../sys/index.ts';
import { RingSet } from './ring-set.ts';
import type { WorkerMessage, WorkerReport, WorkerSetup } from './worker-messages.ts';

const { port, wakeFd, threadName, busyPollUs } = workerData as WorkerSetup;
let isRunning = true;

function report(message: WorkerReport): void {
  port.postMessage(message);
}

function takeMessages(rings: RingSet): void {
  // Before the messages: one that is posted after the last look signals again.
  drainEventFd(wakeFd);
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: WorkerMessage } | undefined;
    if (received === undefined) return;
    const { sequence, body } = received.message;
    try {
      if (body.kind === 'stats') {
        report({ kind: 'done', sequence, stats: { ...rings.stats } });
      } else if (body.kind === 'stop') {
        isRunning = false;
        report({ kind: 'done', sequence });
      } else {
        rings.obey(body, () => report({ kind: 'done', sequence }));
      }
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      report({ kind: 'failed', sequence, message });
    }
  }
}

setThreadName(threadName);
scheduleInBatches();
const rings = new RingSet(() => performance.now(), {
  binding: new ProcessorBinding(),
  busyPoll: new BusyPoll(busyPollUs),
});
rings.onBroken = (queueId) => report({ kind: 'broken', queueId });
rings.wakeBy(wakeFd);
while (isRunning) {
  if (rings.turn(-1)) takeMessages(rings);
}
rings.close();
port.close();
