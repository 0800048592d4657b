/** The files of the service, as they lie in the package, and where each belongs. */

/** A file of the folder `systemd`. */
export interface ServiceFile {
  /** Its name there. */
  readonly source: string;
  /** Below /etc, and below the lib folder of a prefix. */
  readonly target: string;
}

/** All of them. The order is that in which they are of use. */
export const SERVICE_FILES: readonly ServiceFile[] = [
  { source: 'sysusers.conf', target: 'sysusers.d/xenblk-nbd.conf' },
  // After the rules of the distribution, which may set a group of their own.
  { source: 'udev.rules', target: 'udev/rules.d/90-xenblk-nbd.rules' },
  { source: 'modules-load.conf', target: 'modules-load.d/xenblk-nbd.conf' },
  { source: 'modprobe.conf', target: 'modprobe.d/xenblk-nbd.conf' },
  { source: 'xenblk-nbd@.socket', target: 'systemd/system/xenblk-nbd@.socket' },
  { source: 'xenblk-nbd@.service', target: 'systemd/system/xenblk-nbd@.service' },
  {
    source: 'xenblk-nbd-take-over@.service',
    target: 'systemd/system/xenblk-nbd-take-over@.service',
  },
  { source: 'xenblk-nbd-client@.service', target: 'systemd/system/xenblk-nbd-client@.service' },
];
