/**
 * The numbers and names of the XenStore wire protocol: xen/include/public/io/xs_wire.h and
 * docs/misc/xenstore.txt of Xen. Names are the header's, without the `XS_` prefix.
 */

/** Message types, the first word of a packet. 20 was XS_RESTRICT and is no longer valid. */
export const XsType = {
  CONTROL: 0,
  DIRECTORY: 1,
  READ: 2,
  GET_PERMS: 3,
  WATCH: 4,
  UNWATCH: 5,
  TRANSACTION_START: 6,
  TRANSACTION_END: 7,
  INTRODUCE: 8,
  RELEASE: 9,
  GET_DOMAIN_PATH: 10,
  WRITE: 11,
  MKDIR: 12,
  RM: 13,
  SET_PERMS: 14,
  WATCH_EVENT: 15,
  ERROR: 16,
  IS_DOMAIN_INTRODUCED: 17,
  RESUME: 18,
  SET_TARGET: 19,
  RESET_WATCHES: 21,
  DIRECTORY_PART: 22,
  GET_FEATURE: 23,
  SET_FEATURE: 24,
  GET_QUOTA: 25,
  SET_QUOTA: 26,
} as const;
export type XsType = (typeof XsType)[keyof typeof XsType];

const nameOfTypeNumber: ReadonlyMap<number, string> = new Map(
  Object.entries(XsType).map(([name, type]) => [type, name]),
);

/** The name of a message type for messages and logs; `type 20` for a number that has none. */
export function nameOfXsType(type: number): string {
  return nameOfTypeNumber.get(type) ?? `type ${type}`;
}

/** The error names of xs_wire.h, in its order. Errors travel as names, not as numbers. */
export const xsErrorNames = [
  'EINVAL',
  'EACCES',
  'EEXIST',
  'EISDIR',
  'ENOENT',
  'ENOMEM',
  'ENOSPC',
  'EIO',
  'ENOTEMPTY',
  'ENOSYS',
  'EROFS',
  'EBUSY',
  'EAGAIN',
  'EISCONN',
  'E2BIG',
  'EPERM',
] as const;
/** The names of errors that a XenStore server sends. */
/** The names of errors that a XenStore server sends. */
export type XsErrorName = (typeof xsErrorNames)[number];

const knownErrorNames: ReadonlySet<string> = new Set(xsErrorNames);

/** Whether a name is one of {@link xsErrorNames}. */
export function isXsErrorName(name: string): name is XsErrorName {
  return knownErrorNames.has(name);
}

/** Length of a packet's header: four u32 {type, req_id, tx_id, len}. */
export const XENSTORE_HEADER_SIZE = 16;
/** Most bytes of payload in one packet, in both directions; more ends the connection. */
export const XENSTORE_PAYLOAD_MAX = 4096;
/** Longest absolute path, in bytes. */
export const XENSTORE_ABS_PATH_MAX = 3072;
/** Longest relative or special path, in bytes. */
export const XENSTORE_REL_PATH_MAX = 2048;
/** Highest domain id that a body may name. */
export const DOMID_MAX = 65535;
