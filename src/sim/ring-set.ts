/**
 * All rings and disks that one thread serves, over one epoll set. It is driven from outside: by a
 * worker thread that waits in it, or step by step by a deterministic test with a clock of its own.
 */

import { BackRing, blkifLayout, createRingArea, GRANT_PAGE_BYTES } from '../blkif/index.ts';
import { EPOLLIN, Epoll, viewMemory } from '../sys/index.ts';
import {
  BlkbackEngine,
  createEngineStats,
  type EngineDisk,
  type EngineStats,
} from './blkback-engine.ts';
import { openEventChannel, type SimulatedEventChannel } from './event-channel.ts';
import { SeededRandom } from './faults.ts';
import { FdDisk } from './fd-disk.ts';
import { type Binding, FrontEndFollower } from './front-end-follower.ts';
import { GrantMap } from './grant-map.ts';
import { HostileAnswers } from './hostile-answers.ts';
import { IovecList } from './iovec-list.ts';
import { QueueRunner, type RunnerFaults } from './queue-runner.ts';
import { VolatileDisk } from './volatile-disk.ts';
import type { AttachQueue, WorkerCommand } from './worker-messages.ts';

const MAX_EVENTS = 64;
const WAKE_TOKEN = 0xffff_ffff;

interface Queue {
  readonly runner: QueueRunner;
  readonly channel: SimulatedEventChannel;
  /** Set while the queue is being detached: whom to tell when nothing is left of it. */
  onDetached: (() => void) | undefined;
}

export class RingSet {
  /** Called when a front end broke its ring. */
  onBroken: (queueId: number) => void = () => undefined;
  readonly stats: EngineStats = createEngineStats();
  readonly #clockMs: () => number;
  readonly #epoll = new Epoll(MAX_EVENTS);
  readonly #queues = new Map<number, Queue>();
  readonly #disks = new Map<number, EngineDisk & { sectors: number }>();
  /** Runners that stopped in the middle of their work. */
  readonly #unfinished = new Set<QueueRunner>();
  readonly #faults: RunnerFaults = { errorRate: 0, delayMs: 0 };
  readonly #iovecs = new IovecList();
  /** Nothing is late and nothing is ending: there is only to wait for events. */
  #isCalm = true;
  readonly #follower: FrontEndFollower | undefined;
  /** The only ring, whose front end is followed. */
  #followed: Queue | undefined;

  /** @param binding moves the thread of the caller; without one it stays where it is. */
  constructor(clockMs: () => number, binding?: Binding) {
    this.#clockMs = clockMs;
    this.#follower = binding && new FrontEndFollower(binding, this.stats);
  }

  /** Makes {@link turn} return true when `fd` is readable. */
  wakeBy(fd: number): void {
    this.#epoll.add(fd, EPOLLIN, WAKE_TOKEN);
  }

  /**
   * Waits for events, at most `maxWaitMs` (-1: for ever), and serves what there is to serve.
   * Returns whether the descriptor of {@link wakeBy} is readable.
   */
  turn(maxWaitMs: number): boolean {
    const count = this.#epoll.wait(this.#isCalm ? maxWaitMs : this.#waitMs(maxWaitMs));
    const nowMs = this.#clockMs();
    if (this.#followed !== undefined) this.#follower?.rung(this.#followed.channel.signalProcessor);
    let isWoken = false;
    for (let index = 0; index < count; index++) {
      const token = this.#epoll.tokenAt(index);
      if (token === WAKE_TOKEN) isWoken = true;
      else this.#run(this.#queues.get(token)?.runner, nowMs);
    }
    if (!this.#isCalm) this.#runDue(nowMs);
    return isWoken;
  }

  /** When {@link turn} has something to do without an event; Infinity for never. */
  get nextDueMs(): number {
    if (this.#unfinished.size > 0) return 0;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { runner } of this.#queues.values()) nextMs = Math.min(nextMs, runner.nextDueMs);
    return nextMs;
  }

  /** Does what a command asks. `onDone` is called when it is done, for a detach in a later turn. */
  obey(command: WorkerCommand, onDone: () => void): void {
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
        queue.onDetached = onDone;
        this.#isCalm = false;
        return;
      }
      case 'disk': {
        const disk = this.#disks.get(command.diskId);
        if (disk === undefined) {
          const file = new FdDisk(command.fd, command.sectors);
          this.#disks.set(command.diskId, command.isVolatile ? new VolatileDisk(file) : file);
        } else {
          disk.sectors = command.sectors;
        }
        break;
      }
      case 'lose-power': {
        const disk = this.#disks.get(command.diskId);
        if (disk instanceof VolatileDisk) disk.losePower(new SeededRandom(command.seed));
        break;
      }
      case 'faults':
        this.#faults.errorRate = command.errorRate;
        this.#faults.delayMs = command.delayMs;
        this.#isCalm = false;
        break;
    }
    onDone();
  }

  close(): void {
    this.#epoll.close();
  }

  /** Front ends of several rings are on processors of their own: nobody is followed then. */
  #chooseFollowed(): void {
    const [first] = this.#queues.values();
    this.#followed = this.#queues.size === 1 ? first : undefined;
    this.#follower?.stop();
  }

  #waitMs(maxWaitMs: number): number {
    const nextMs = this.nextDueMs;
    if (nextMs === Number.POSITIVE_INFINITY) return this.#hasDetaching() ? 0 : maxWaitMs;
    const waitMs = Math.max(0, Math.ceil(nextMs - this.#clockMs()));
    return maxWaitMs < 0 ? waitMs : Math.min(waitMs, maxWaitMs);
  }

  #hasDetaching(): boolean {
    for (const queue of this.#queues.values()) {
      if (queue.onDetached !== undefined) return true;
    }
    return false;
  }

  #run(runner: QueueRunner | undefined, nowMs: number): void {
    if (runner === undefined) return;
    if (runner.run(nowMs)) {
      this.#unfinished.add(runner);
      this.#isCalm = false;
    } else {
      this.#unfinished.delete(runner);
      if (runner.nextDueMs !== Number.POSITIVE_INFINITY) this.#isCalm = false;
    }
  }

  /** What is not caused by an event: work that was put off, late requests, queues that end. */
  #runDue(nowMs: number): void {
    for (const runner of this.#unfinished) this.#run(runner, nowMs);
    let isCalm = this.#unfinished.size === 0;
    for (const [queueId, queue] of this.#queues) {
      const { runner, onDetached } = queue;
      if (runner.nextDueMs !== Number.POSITIVE_INFINITY) runner.runDue(nowMs);
      if (onDetached !== undefined && runner.isStopped) {
        runner.engine.releaseKept();
        this.#queues.delete(queueId);
        this.#chooseFollowed();
        onDetached();
      } else if (onDetached !== undefined || runner.nextDueMs !== Number.POSITIVE_INFINITY) {
        isCalm = false;
      }
    }
    this.#isCalm = isCalm;
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
    const backRing = BackRing.attach(area);
    const grants = new GrantMap(command.grants, command.domid);
    const channel = openEventChannel(command.channel);
    const random = new SeededRandom(command.seed);
    const engine = new BlkbackEngine({
      ring: backRing,
      layout: blkifLayout(ring.abi),
      grants,
      disk,
      features: command.features,
      iovecs: this.#iovecs,
      stats: this.stats,
    });
    const hostile =
      command.hostility &&
      new HostileAnswers(
        { words: area.words, ring: backRing, grants, random, notify: () => channel.notify() },
        command.hostility,
      );
    const runner = new QueueRunner(engine, channel, this.#faults, random, hostile);
    runner.onBroken = () => this.onBroken(queueId);
    this.#queues.set(queueId, { runner, channel, onDetached: undefined });
    this.#chooseFollowed();
    this.#epoll.add(channel.fd, EPOLLIN, queueId);
  }
}
