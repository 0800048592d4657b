/**
 * The thread of simulated back ends: its own epoll loop over the event channels of all rings it
 * serves, and nothing else. It never returns to Node's event loop before it ends, so it must not
 * print, and hears of commands through an eventfd.
 *
 * One thread serves any number of rings and disks, one turn each.
 */

import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { BackRing, blkifLayout, createRingArea, GRANT_PAGE_BYTES } from '../blkif/index.ts';
import { drainEventFd, EPOLLIN, Epoll, setThreadName, viewMemory } from '../sys/index.ts';
import { BlkbackEngine, createEngineStats, type EngineStats } from './blkback-engine.ts';
import { openEventChannel } from './event-channel.ts';
import { SeededRandom } from './faults.ts';
import { FdDisk } from './fd-disk.ts';
import { GrantMap } from './grant-map.ts';
import { IovecList } from './iovec-list.ts';
import { QueueRunner, type RunnerFaults } from './queue-runner.ts';
import type {
  AttachQueue,
  NumberedCommand,
  WorkerCommand,
  WorkerReport,
  WorkerSetup,
} from './worker-messages.ts';

const MAX_EVENTS = 64;
const COMMAND_TOKEN = 0xffff_ffff;

interface Queue {
  readonly runner: QueueRunner;
  /** Set while the queue is being detached: the command to answer. */
  detachSequence: number | undefined;
}

class BlkbackWorker {
  readonly #port: MessagePort;
  readonly #commandFd: number;
  readonly #epoll = new Epoll(MAX_EVENTS);
  readonly #queues = new Map<number, Queue>();
  readonly #disks = new Map<number, FdDisk>();
  /** Runners that stopped in the middle of their work. */
  readonly #unfinished = new Set<QueueRunner>();
  readonly #faults: RunnerFaults = { errorRate: 0, delayMs: 0 };
  readonly #iovecs = new IovecList();
  readonly #stats: EngineStats = createEngineStats();
  #isRunning = true;
  /** Nothing is late and nothing is ending: the loop only has to wait for events. */
  #isCalm = true;

  constructor(setup: WorkerSetup) {
    this.#port = setup.port;
    this.#commandFd = setup.commandFd;
    this.#epoll.add(this.#commandFd, EPOLLIN, COMMAND_TOKEN);
  }

  loop(): void {
    while (this.#isRunning) {
      const count = this.#epoll.wait(this.#timeoutMs());
      const nowMs = performance.now();
      for (let index = 0; index < count; index++) {
        const token = this.#epoll.tokenAt(index);
        if (token === COMMAND_TOKEN) this.#takeCommands();
        else this.#run(this.#queues.get(token)?.runner, nowMs);
      }
      if (this.#unfinished.size > 0) {
        for (const runner of this.#unfinished) this.#run(runner, nowMs);
      }
      if (!this.#isCalm) this.#runDue();
    }
    this.#epoll.close();
    this.#port.close();
  }

  #timeoutMs(): number {
    if (this.#unfinished.size > 0) return 0;
    if (this.#isCalm) return -1;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { runner } of this.#queues.values()) nextMs = Math.min(nextMs, runner.nextDueMs);
    if (nextMs === Number.POSITIVE_INFINITY) return -1;
    return Math.max(0, Math.ceil(nextMs - performance.now()));
  }

  #run(runner: QueueRunner | undefined, nowMs: number): void {
    if (runner === undefined) return;
    if (runner.run(nowMs)) this.#unfinished.add(runner);
    else this.#unfinished.delete(runner);
  }

  #runDue(): void {
    let isCalm = this.#faults.delayMs === 0;
    for (const [queueId, queue] of this.#queues) {
      const { runner, detachSequence } = queue;
      if (runner.heldCount > 0) runner.runDue(performance.now());
      if (detachSequence !== undefined && runner.isStopped) {
        runner.engine.releaseKept();
        this.#queues.delete(queueId);
        this.#report({ kind: 'done', sequence: detachSequence });
      } else if (detachSequence !== undefined || runner.heldCount > 0) {
        isCalm = false;
      }
    }
    this.#isCalm = isCalm;
  }

  #takeCommands(): void {
    // Before the messages: a command that is posted after the last look signals again.
    drainEventFd(this.#commandFd);
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: NumberedCommand } | undefined;
      if (received === undefined) return;
      const { sequence, command } = received.message;
      try {
        this.#obey(command, sequence);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        this.#report({ kind: 'failed', sequence, message });
      }
    }
  }

  #obey(command: WorkerCommand, sequence: number): void {
    switch (command.kind) {
      case 'attach':
        this.#attach(command);
        break;
      case 'detach': {
        const queue = this.#queues.get(command.queueId);
        // One that was never attached has nothing to be finished.
        if (queue === undefined) break;
        this.#epoll.remove(queue.runner.channel.fd);
        this.#unfinished.delete(queue.runner);
        queue.runner.stop(command.mode);
        queue.detachSequence = sequence;
        this.#isCalm = false;
        return;
      }
      case 'disk': {
        const disk = this.#disks.get(command.diskId);
        if (disk === undefined) {
          this.#disks.set(command.diskId, new FdDisk(command.fd, command.sectors));
        } else {
          disk.sectors = command.sectors;
        }
        break;
      }
      case 'faults':
        this.#faults.errorRate = command.errorRate;
        this.#faults.delayMs = command.delayMs;
        this.#isCalm = false;
        break;
      case 'stats':
        this.#report({ kind: 'done', sequence, stats: { ...this.#stats } });
        return;
      case 'stop':
        this.#isRunning = false;
        break;
    }
    this.#report({ kind: 'done', sequence });
  }

  #attach(command: AttachQueue): void {
    const { ring, queueId } = command;
    const disk = this.#disks.get(command.diskId);
    if (disk === undefined) throw new Error(`disk ${command.diskId} is not known`);
    const area = createRingArea({
      buffer: viewMemory(ring.address, ring.pageCount * GRANT_PAGE_BYTES),
      offsetBytes: 0,
      ringPageCount: ring.pageCount,
      abi: ring.abi,
    });
    const engine = new BlkbackEngine({
      ring: BackRing.attach(area),
      layout: blkifLayout(ring.abi),
      grants: new GrantMap(command.grants, command.domid),
      disk,
      features: command.features,
      iovecs: this.#iovecs,
      stats: this.#stats,
    });
    const channel = openEventChannel(command.channel);
    const random = new SeededRandom(command.seed);
    const runner = new QueueRunner(engine, channel, this.#faults, random);
    runner.onBroken = () => this.#report({ kind: 'broken', queueId });
    this.#queues.set(queueId, { runner, detachSequence: undefined });
    this.#epoll.add(channel.fd, EPOLLIN, queueId);
  }

  #report(report: WorkerReport): void {
    this.#port.postMessage(report);
  }
}

const setup = workerData as WorkerSetup;
setThreadName(setup.threadName);
new BlkbackWorker(setup).loop();
