/**
 * Sockets that a service manager opened for us (sd_listen_fds(3)): descriptors from 3 on, as many
 * as LISTEN_FDS says, when LISTEN_PID is this process. The variables are taken out of the
 * environment, so that no program that we start believes they are meant for it.
 */

import { AF_VSOCK, setCloseOnExec, socketKindOf } from '../sys/index.ts';
import { DaemonError } from './errors.ts';

const LISTEN_FDS_START = 3;
const LISTEN_FDS_MAX = 1024;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SERVED_DOMAINS = [AF_UNIX, AF_INET, AF_INET6, AF_VSOCK];
const SOCK_STREAM = 1;

export interface PassedDescriptor {
  readonly fd: number;
  /** The name that the service manager gives it, or `unknown`. */
  readonly name: string;
}

/** Takes what was passed; nothing, when nothing was meant for this process. */
export function takePassedDescriptors(env: NodeJS.ProcessEnv): readonly PassedDescriptor[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names } = env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID']) {
    delete env[name];
  }
  if (pid !== String(process.pid) || count === undefined || !/^[0-9]{1,4}$/.test(count)) return [];
  const nameList = names === undefined ? [] : names.split(':');
  return Array.from({ length: Math.min(Number(count), LISTEN_FDS_MAX) }, (_, index) => {
    const fd = LISTEN_FDS_START + index;
    setCloseOnExec(fd);
    return { fd, name: nameList[index] ?? 'unknown' };
  });
}

/** Refuses a descriptor that clients cannot connect to. @throws DaemonError */
export function checkListening({ fd, name }: PassedDescriptor): void {
  const kind = socketKindOf(fd);
  const what = `descriptor ${fd} (${name}), which the service manager passed,`;
  if (kind === undefined) throw new DaemonError(`${what} is no socket: check the .socket unit`);
  if (kind.type !== SOCK_STREAM) {
    throw new DaemonError(`${what} is no stream socket: use ListenStream= in the .socket unit`);
  }
  if (!kind.isListening) {
    throw new DaemonError(
      `${what} is a connection: set Accept=no in the .socket unit, or use --stdio`,
    );
  }
  if (!SERVED_DOMAINS.includes(kind.domain)) {
    throw new DaemonError(`${what} is no Unix, TCP or vsock socket, which are all we serve`);
  }
}
