/**
 * The owner's end of an event channel on /dev/xen/evtchn. A lane imports this module by the URL in
 * the handle, in its own thread; all that crosses threads is the descriptor and the port number.
 *
 * The descriptor has exactly one port, so a read gives one number or none.
 */

import type { EventChannel, EventChannelHandle } from '../host/index.ts';
import { allocateMemory, Errno, errno, libc, SysError } from '../sys/index.ts';
import { IOCTL_EVTCHN_NOTIFY } from './evtchn.ts';

const PORT_BYTES = 4;
/** Two words: the port, as argument of NOTIFY and of unmask; and what a read brings. */
const READ_OFFSET = 4;

/** Satisfies EventChannelModule of src/host. */
export function openEventChannel(handle: EventChannelHandle): EventChannel {
  const { fd, port } = handle;
  const memory = allocateMemory(READ_OFFSET + PORT_BYTES);
  const portAddress = memory.address;
  const readAddress = memory.address + READ_OFFSET;
  new Uint32Array(memory.buffer, 0, 1)[0] = port;

  return {
    fd,
    notify() {
      if (libc.ioctl(fd, IOCTL_EVTCHN_NOTIFY, portAddress) !== 0) {
        throw new SysError(`notify of event channel ${port}`, errno());
      }
    },
    consume() {
      if (libc.read(fd, readAddress, PORT_BYTES) === PORT_BYTES) return true;
      const number = errno();
      if (number === Errno.EAGAIN || number === Errno.EINTR) return false;
      throw new SysError(`read of event channel ${port}`, number);
    },
    unmask() {
      // The kernel re-raises an event that came while the port was masked, so none is lost.
      if (libc.write(fd, portAddress, PORT_BYTES) !== PORT_BYTES) {
        throw new SysError(`unmask of event channel ${port}`, errno());
      }
    },
  };
}
