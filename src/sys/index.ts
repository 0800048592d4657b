export { BusyPoll } from './busy-poll.ts';
export { MonotonicClock } from './clock.ts';
export { duplicateFd, endReading, exitNow } from './descriptor.ts';
export {
  EPOLLERR,
  EPOLLEXCLUSIVE,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLRDHUP,
  Epoll,
} from './epoll.ts';
export { Errno, errnoName, SysError } from './errno.ts';
export { closeFd, createEventFd, drainEventFd, signalEventFd } from './event-fd.ts';
export { becomeIoFlusher } from './io-flusher.ts';
export { errno, libc, viewMemory } from './libc.ts';
export {
  allocateMemory,
  emptyMemory,
  type Memory,
  makePrivate,
  mapPrivate,
  mapShared,
  PAGE_SIZE,
  unmapMemory,
} from './memory.ts';
export { NetlinkSocket } from './netlink.ts';
export { type ReadableWatch, watchReadable } from './readable-watcher.ts';
export {
  currentProcessor,
  ProcessorBinding,
  scheduleInBatches,
  yieldProcessor,
} from './scheduling.ts';
export { enlargeSendBuffer } from './send-buffer.ts';
export { untakenBytesOf } from './socket-queue.ts';
export { setThreadName } from './thread-name.ts';
export {
  createSocketPair,
  type SocketKind,
  sendUnixDatagram,
  setCloseOnExec,
  socketKindOf,
  unixPathOf,
} from './unix-socket.ts';
export {
  type AcceptedSocket,
  AF_VSOCK,
  acceptVsock,
  connectVsock,
  listenVsock,
  localCid,
  VMADDR_ANY,
  VMADDR_CID_LOCAL,
  type VsockName,
  vsockNameOf,
} from './vsock.ts';
