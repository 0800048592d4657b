/** `xenblk-nbd man-page`: the manual page, for packages and for `man -l -`. */

import { Command } from 'commander';
import { packageVersion } from '../daemon/index.ts';
import { renderManual } from './roff.ts';

/** @param program - the whole command line, which is looked at when the command runs. */
export function manPageCommand(program: Command): Command {
  return new Command('man-page')
    .description('print the manual page; `xenblk-nbd man-page | man -l -` shows it')
    .action(() => {
      process.stdout.write(renderManual(program, { version: packageVersion(), others: OTHERS }));
    });
}

const OTHERS: readonly (readonly [title: string, paragraphs: readonly string[]])[] = [
  [
    'SIGNALS',
    [
      'SIGTERM and SIGINT stop serve: requests in progress are answered, the disk is flushed, and ' +
        'the vbd is closed so that the next frontend can attach. A second signal ends it at once.',
      'SIGHUP reads certificates and keys again.',
    ],
  ],
  [
    'OUTPUT',
    [
      'When serve is ready it prints one line for each address and export on standard output, ' +
        'such as "ready: nbd+unix:///xvdb?socket=/run/xvdb.sock". The log goes to standard error, ' +
        'as JSON unless that is a terminal.',
    ],
  ],
  [
    'EXIT STATUS',
    ['0: ok. 1: failed, with one line on standard error that says what to do. 2: wrong usage.'],
  ],
  [
    'FILES',
    [
      '/dev/xen/xenbus, /dev/xen/gntalloc, /dev/xen/evtchn: what serve needs of the kernel.',
      '/etc/xenblk-nbd/INSTANCE.conf: OPTIONS= of the unit xenblk-nbd@INSTANCE, and DEVICE= and ' +
        'CLIENT_OPTIONS= of xenblk-nbd-client@INSTANCE.',
      '/run/xenblk-nbd/INSTANCE.sock and INSTANCE.metrics: where the unit serves, and is watched.',
    ],
  ],
  [
    'ENVIRONMENT',
    [
      'NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS and others of sd_notify(3) and sd_listen_fds(3): ' +
        'the service manager is told of the state, asked for signs of life, and its sockets are used.',
    ],
  ],
  ['SEE ALSO', ['nbd-client(8), nbdinfo(1), nbdcopy(1), qemu-img(1), xl(1), systemctl(1)']],
];
