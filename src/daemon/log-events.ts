/**
 * The events of the log. Names are part of the interface: programs look for them. Each line has
 * one, as `event`; the table in the README is made of this, and a test compares the two.
 */

/** What each event means. */
export const LOG_EVENTS = {
  attached: 'a vbd is connected to its backend for the first time: what was agreed',
  memory: 'at the start: how much this process may take, and how the kernel finds it',
  'queues-lost': 'the backend came back with fewer rings: lanes share them',
  'recovery-began': 'the connection to a backend is lost, clients wait',
  'recovery-ended': 'it is back, and how long clients waited',
  resized: 'the disk has another size',
  'write-through': 'the backend offers no flush',
  'flush-failed': 'the last flush of a disk failed',
  'drain-timeout': 'requests were given up at the end',
  'backend-broken': 'the backend did what it may not do; its vbd answers with errors from now on',
  'backend-errors': 'the backend reported errors: of what, since it was told last, and where',
  unplugging: 'the toolstack removes a vbd',
  unplugged: 'a vbd is gone',
  'vbd-failed': 'a vbd cannot be served any more, and why',
  'client-came': 'a client is served: from where, which export, over TLS or not',
  'client-left': 'a client is gone: why, and how many requests it made',
  'client-dropped': 'a client was cut off: from where, and what it did',
  'client-refused': 'a client was turned away, since there are too many',
  'client-handshake': 'the handshake of a client failed, and why',
  'client-failed': 'a client could not be served, a fault of this program',
  'accept-failed': 'a client could not be taken in, for want of descriptors above all',
  'limit-hit': 'a limit made requests wait: how often since it was told last, what raises it',
  'lines-omitted': 'more warnings of one kind than are written in ten seconds',
  'taken-over': "a vbd was taken from the kernel's driver",
  'not-taken': 'it could not be taken again when it came back',
  'handed-back': "a vbd was given back to the kernel's driver",
  'not-handed-back': 'it could not be, and what to do',
  'channels-orphaned': 'the guest was restored: who holds the event channels of before',
  'channels-unheld': 'nobody does: do not end this process',
  'holder-in-service': 'the process that holds them can be killed by the service manager',
  'metrics-open': 'where metrics and the status page are',
  'metrics-failed': 'nobody can look at them at the moment',
  'trace-stopped': 'the file of --trace cannot be written, and why; the I/O goes on',
  'device-connected': "a device of the kernel's has a server (`nbd-device`, as those that follow)",
  'device-taken-up': 'it was connected by a process that has ended',
  'device-lost': 'its server is gone; requests wait',
  'device-waits': 'why there is no server yet',
  'device-back': 'it has a server again, and how long requests waited',
  'device-ended': 'it is disconnected',
  'not-notified': 'the service manager cannot be told anything',
  'lane-stuck': 'a lane does not move: the service manager may restart us',
  'tls-reloaded': 'SIGHUP: certificates and keys were read again',
  'tls-not-reloaded': 'those of before stay in use, and why',
  'nothing-to-reload': 'SIGHUP without TLS',
  stopping: 'a signal: requests in progress are finished',
  closed: 'an address is not listened at any more (debug)',
  frontend: 'what the frontend of a vbd does in XenStore',
  simulated: 'what the simulated Xen host does (debug)',
} as const;

/** The name of an event. */
export type LogEvent = keyof typeof LOG_EVENTS;
