/**
 * All rings and disks that one thread serves, over one epoll set. It is driven from outside: by a
 * worker thread that waits in it, or step by step by a deterministic test with a clock of its own.
 */

import { BackRing, blkifLayout, createRingArea, GRANT_PAGE_BYTES } from '../blkif/index.ts';
import {
  type BusyPoll,
  EPOLLIN,
  Epoll,
  MonotonicClock,
  viewMemory,
  yieldProcessor,
} from '../sys/index.ts';
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
/** Turns that find requests without a look at the events of others. */
const TURNS_WITHOUT_EVENTS = 16;

interface Queue {
  readonly runner: QueueRunner;
  readonly channel: SimulatedEventChannel;
  /** It has not asked to be woken: its ring is looked at instead. */
  isAwake: boolean;
  /** Set while the queue is being detached: whom to tell when nothing is left of it. */
  onDetached: (() => void) | undefined;
}

/** What a thread does for its rings that serves nothing else; none of it by default. */
export interface ServingThread {
  /** Moves it to the processor of a front end. */
  readonly binding?: Binding;
  /** Says when it looks for requests instead of sleeping. */
  readonly busyPoll?: BusyPoll;
}

export class RingSet {
  /** Called when a front end broke its ring. */
  onBroken: (queueId: number) => void = () => undefined;
  readonly stats: EngineStats = createEngineStats();
  readonly #clockMs: () => number;
  readonly #epoll = new Epoll(MAX_EVENTS);
  readonly #queues = new Map<number, Queue>();
  /** The same, for loops that make no garbage. */
  #queueList: readonly Queue[] = [];
  readonly #disks = new Map<number, EngineDisk & { sectors: number }>();
  /** Runners that stopped in the middle of their work. */
  readonly #unfinished = new Set<QueueRunner>();
  readonly #faults: RunnerFaults = { errorRate: 0, delayMs: 0 };
  readonly #iovecs = new IovecList();
  /** Nothing is late and nothing is ending: there is only to wait for events. */
  #isCalm = true;
  readonly #busyPoll: BusyPoll | undefined;
  readonly #clock = new MonotonicClock();
  #turnsWithoutEvents = 0;
  readonly #follower: FrontEndFollower | undefined;
  /** The only ring, whose front end is followed. */
  #followed: Queue | undefined;

  constructor(clockMs: () => number, { binding, busyPoll }: ServingThread = {}) {
    this.#clockMs = clockMs;
    this.#busyPoll = busyPoll;
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
    const count = this.#wait(maxWaitMs);
    if (this.#followed !== undefined) this.#follow(this.#followed);
    let isWoken = false;
    for (let index = 0; index < count; index++) {
      const token = this.#epoll.tokenAt(index);
      if (token === WAKE_TOKEN) isWoken = true;
      else this.#run(this.#queues.get(token));
    }
    this.#serveAwake();
    if (!this.#isCalm) this.#runDue(this.#clockMs());
    return isWoken;
  }

  #follow({ channel }: Queue): void {
    this.#follower?.rung(channel.signalProcessor, this.#busyPoll?.pays === true);
  }

  /** Waits, awake at first where that pays; returns how many events came. */
  #wait(maxWaitMs: number): number {
    const poll = this.#busyPoll;
    if (poll === undefined || !this.#isCalm) {
      const isMore = this.#restAll();
      return this.#epoll.wait(isMore ? 0 : this.#isCalm ? maxWaitMs : this.#waitMs(maxWaitMs));
    }
    if (this.#hasRequests() && this.#turnsWithoutEvents < TURNS_WITHOUT_EVENTS) {
      this.#turnsWithoutEvents += 1;
      poll.found();
      return 0;
    }
    this.#turnsWithoutEvents = 0;
    const clock = this.#clock;
    clock.read();
    if (poll.begin(clock.us)) {
      do {
        const count = this.#epoll.wait(0);
        if (count > 0 || this.#hasRequests()) {
          poll.found();
          return count;
        }
        yieldProcessor();
        clock.read();
      } while (poll.goesOn(clock.us));
    }
    if (this.#restAll()) return 0;
    const count = this.#epoll.wait(maxWaitMs);
    clock.read();
    poll.woken(clock.us);
    return count;
  }

  #hasRequests(): boolean {
    for (const queue of this.#queueList) {
      if (queue.isAwake && queue.runner.hasRequests) return true;
    }
    return false;
  }

  #serveAwake(): void {
    for (const queue of this.#queueList) {
      if (queue.isAwake && queue.runner.hasRequests) this.#serve(queue);
    }
  }

  /** Every ring will wake us for its next request; true when one has it already. */
  #restAll(): boolean {
    let isMore = false;
    for (const queue of this.#queueList) {
      if (!queue.isAwake) continue;
      queue.isAwake = queue.runner.rest();
      if (queue.isAwake) isMore = true;
    }
    return isMore;
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
  #queuesChanged(): void {
    this.#queueList = [...this.#queues.values()];
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

  /** A ring has an event. */
  #run(queue: Queue | undefined): void {
    if (queue === undefined) return;
    const { runner } = queue;
    if (this.#busyPoll !== undefined && this.#isCalm) {
      runner.channel.consume();
      queue.isAwake = true;
      this.#serve(queue);
    } else {
      this.#finish(runner, this.#clockMs());
    }
  }

  #serve({ runner }: Queue): void {
    runner.serve(runner.isPlain ? 0 : this.#clockMs());
    if (runner.nextDueMs !== Number.POSITIVE_INFINITY) this.#isCalm = false;
  }

  #finish(runner: QueueRunner, nowMs: number): void {
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
    for (const runner of this.#unfinished) this.#finish(runner, nowMs);
    let isCalm = this.#unfinished.size === 0;
    for (const [queueId, queue] of this.#queues) {
      const { runner, onDetached } = queue;
      if (runner.nextDueMs !== Number.POSITIVE_INFINITY) runner.runDue(nowMs);
      if (onDetached !== undefined && runner.isStopped) {
        runner.engine.releaseKept();
        this.#queues.delete(queueId);
        this.#queuesChanged();
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
    this.#queues.set(queueId, { runner, channel, isAwake: false, onDetached: undefined });
    this.#queuesChanged();
    this.#epoll.add(channel.fd, EPOLLIN, queueId);
  }
}
