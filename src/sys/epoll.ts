/** epoll(7) for a thread that waits for its descriptors by itself, outside of Node's event loop. */

import { SysError } from './errno.ts';
import { errno, libc } from './libc.ts';
import { allocateMemory } from './memory.ts';

/** There is something to read. */
export const EPOLLIN = 0x001;
/** There is room to write. */
export const EPOLLOUT = 0x004;
/** The descriptor has an error; always reported. */
export const EPOLLERR = 0x008;
/** The peer is gone altogether; always reported. */
export const EPOLLHUP = 0x010;
/** The peer sends nothing more. */
export const EPOLLRDHUP = 0x2000;
/** Wakes one of several threads that wait for the descriptor. */
export const EPOLLEXCLUSIVE = 0x1000_0000;

const EPOLL_CLOEXEC = 0x80000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

// struct epoll_event {u32 events; u64 data}: packed on x86-64 only (linux/eventpoll.h).
const DATA_OFFSET_WORDS = process.arch === 'x64' ? 1 : 2;
const EVENT_WORDS = process.arch === 'x64' ? 3 : 4;

/**
 * One epoll set for one thread. Each descriptor is registered with a token, a u32 of the caller's;
 * after {@link wait} the tokens and event bits of ready descriptors are read by index. Waiting and
 * reading results allocate nothing.
 */
export class Epoll {
  readonly #fd: number;
  readonly #maxEvents: number;
  readonly #eventsAddress: number;
  readonly #words: Uint32Array;
  readonly #argumentAddress: number;
  readonly #argumentIndex: number;

  constructor(maxEvents: number) {
    this.#fd = libc.epollCreate1(EPOLL_CLOEXEC);
    if (this.#fd < 0) throw new SysError('epoll_create1', errno());
    this.#maxEvents = maxEvents;
    // One event more than asked for, at the end: the argument of epoll_ctl.
    const memory = allocateMemory((maxEvents + 1) * EVENT_WORDS * 4);
    this.#words = new Uint32Array(memory.buffer);
    this.#eventsAddress = memory.address;
    this.#argumentIndex = maxEvents * EVENT_WORDS;
    this.#argumentAddress = memory.address + this.#argumentIndex * 4;
  }

  add(fd: number, events: number, token: number): void {
    this.#control(EPOLL_CTL_ADD, fd, events, token);
  }

  modify(fd: number, events: number, token: number): void {
    this.#control(EPOLL_CTL_MOD, fd, events, token);
  }

  /** Must come before the descriptor is closed, in case another process shares it. */
  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0, 0);
  }

  /** Waits; returns how many descriptors are ready. A signal counts as none. */
  wait(timeoutMs: number): number {
    const count = libc.epollWait(this.#fd, this.#eventsAddress, this.#maxEvents, timeoutMs);
    if (count >= 0) return count;
    const number = errno();
    if (number === EINTR) return 0;
    throw new SysError('epoll_wait', number);
  }

  tokenAt(index: number): number {
    return this.#words[index * EVENT_WORDS + DATA_OFFSET_WORDS] ?? 0;
  }

  eventsAt(index: number): number {
    return this.#words[index * EVENT_WORDS] ?? 0;
  }

  close(): void {
    libc.close(this.#fd);
  }

  #control(operation: number, fd: number, events: number, token: number): void {
    this.#words[this.#argumentIndex] = events;
    this.#words[this.#argumentIndex + DATA_OFFSET_WORDS] = token;
    if (libc.epollCtl(this.#fd, operation, fd, this.#argumentAddress) < 0) {
      throw new SysError('epoll_ctl', errno());
    }
  }
}

const EINTR = 4;
