/**
 * Tells the main thread's event loop when descriptors become readable that libuv does not take:
 * character devices such as /dev/xen/xenbus, and kinds of sockets that it does not know.
 *
 * A blocking read of such a device would occupy a thread of libuv's pool that nothing can wake, and
 * then process.exit() hangs for ever. Here one pool thread waits in epoll_wait(2) for all of them
 * and for an eventfd, which is signalled when the last watch stops and when the process exits.
 */

import koffi from 'koffi';
import { SysError } from './errno.ts';
import { createEventFd, drainEventFd, signalEventFd } from './event-fd.ts';
import { errno, libc } from './libc.ts';
import { allocateMemory } from './memory.ts';

const EPOLLIN = 0x001;
const EPOLLOUT = 0x004;
// Disarms the descriptor once it was reported, so that the pool thread does not spin on it while
// the event loop has not yet read it.
const EPOLLONESHOT = 1 << 30;
const EPOLL_CLOEXEC = 0x80000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

// struct epoll_event {u32 events; u64 data}: packed on x86-64 only (linux/eventpoll.h).
const DATA_OFFSET_WORDS = process.arch === 'x64' ? 1 : 2;
const EVENT_WORDS = process.arch === 'x64' ? 3 : 4;
const MAX_EVENTS = 8;

interface AsyncEpollWait {
  async(
    fd: number,
    events: number,
    maxEvents: number,
    timeoutMs: number,
    callback: (error: unknown, count: number) => void,
  ): void;
}

const epollWait = koffi
  .load(null)
  .func('epoll_wait', 'int', ['int', 'uintptr_t', 'int', 'int']) as unknown as AsyncEpollWait;

/** One descriptor under watch. */
export interface ReadableWatch {
  /** Asks for the next call. To be called when a read has said EAGAIN. */
  rearm(): void;
  /** Asks for the next call when `fd` takes more, or is readable if that is wanted as well. */
  rearmForWriting(isReadWanted: boolean): void;
  /** No call follows. Must come before the descriptor is closed. */
  stop(): void;
}

/**
 * Calls `onReadable` once, on the event loop, when `fd` is readable, and again after each
 * {@link ReadableWatch.rearm}. A watch keeps the process alive, as a socket does.
 */
export function watchReadable(fd: number, onReadable: () => void): ReadableWatch {
  shared ??= new Watcher();
  return shared.watch(fd, onReadable);
}

let shared: Watcher | undefined;

class Watcher {
  readonly #epollFd: number;
  readonly #wakeFd: number;
  readonly #words: Uint32Array;
  readonly #eventsAddress: number;
  readonly #argumentAddress: number;
  readonly #callbacks = new Map<number, () => void>();
  #isWaiting = false;

  constructor() {
    this.#epollFd = libc.epollCreate1(EPOLL_CLOEXEC);
    if (this.#epollFd < 0) throw new SysError('epoll_create1', errno());
    // One event more than are asked for, at the end: the argument of epoll_ctl.
    const memory = allocateMemory((MAX_EVENTS + 1) * EVENT_WORDS * 4);
    this.#words = new Uint32Array(memory.buffer);
    this.#eventsAddress = memory.address;
    this.#argumentAddress = memory.address + MAX_EVENTS * EVENT_WORDS * 4;
    this.#wakeFd = createEventFd();
    this.#control(EPOLL_CTL_ADD, this.#wakeFd, EPOLLIN);
    // Node joins its pool threads when it exits, after these handlers have run.
    process.on('exit', () => signalEventFd(this.#wakeFd));
  }

  watch(fd: number, onReadable: () => void): ReadableWatch {
    this.#control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
    this.#callbacks.set(fd, onReadable);
    this.#wait();
    const arm = (events: number): void => {
      if (this.#callbacks.get(fd) !== onReadable) return;
      this.#control(EPOLL_CTL_MOD, fd, events | EPOLLONESHOT);
    };
    return {
      rearm: () => arm(EPOLLIN),
      rearmForWriting: (isReadWanted) => arm(isReadWanted ? EPOLLIN | EPOLLOUT : EPOLLOUT),
      stop: () => {
        if (this.#callbacks.get(fd) !== onReadable) return;
        this.#callbacks.delete(fd);
        this.#control(EPOLL_CTL_DEL, fd, 0);
        if (this.#callbacks.size === 0) signalEventFd(this.#wakeFd);
      },
    };
  }

  /** Lets the pool thread wait, unless it does or there is nothing to wait for. */
  #wait(): void {
    if (this.#isWaiting || this.#callbacks.size === 0) return;
    this.#isWaiting = true;
    epollWait.async(this.#epollFd, this.#eventsAddress, MAX_EVENTS, -1, (error, count) => {
      this.#isWaiting = false;
      if (error !== null) throw error;
      // A negative count is a signal that hit the pool thread: there is nothing to report.
      const ready: number[] = [];
      for (let index = 0; index < count; index++) {
        ready.push(this.#words[index * EVENT_WORDS + DATA_OFFSET_WORDS] ?? -1);
      }
      for (const fd of ready) {
        if (fd === this.#wakeFd) drainEventFd(fd);
        else this.#callbacks.get(fd)?.();
      }
      this.#wait();
    });
  }

  #control(operation: number, fd: number, events: number): void {
    const at = MAX_EVENTS * EVENT_WORDS;
    this.#words[at] = events;
    this.#words[at + DATA_OFFSET_WORDS] = fd;
    if (libc.epollCtl(this.#epollFd, operation, fd, this.#argumentAddress) < 0) {
      throw new SysError('epoll_ctl', errno());
    }
  }
}
