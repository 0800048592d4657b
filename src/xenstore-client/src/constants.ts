/**
 * The numbers and names of the XenStore wire protocol: xen/include/public/io/xs_wire.h and
 * docs/misc/xenstore.txt of Xen. Names are the header's, without the `XS_` prefix.
 */

/** Message types, the first word of a packet. 20 was XS_RESTRICT and is no longer valid. */
export const XsType = {
  /** A command for the server itself. */
  CONTROL: 0,
  /** The names of the children of a node. */
  DIRECTORY: 1,
  /** The value of a node. */
  READ: 2,
  /** The permissions of a node. */
  GET_PERMS: 3,
  /** Sets a watch. */
  WATCH: 4,
  /** Ends a watch. */
  UNWATCH: 5,
  /** Begins a transaction. */
  TRANSACTION_START: 6,
  /** Commits or aborts a transaction. */
  TRANSACTION_END: 7,
  /** Tells the server of a domain. */
  INTRODUCE: 8,
  /** Disconnects a domain from XenStore. */
  RELEASE: 9,
  /** The directory of a domain. */
  GET_DOMAIN_PATH: 10,
  /** Sets the value of a node, which need not be there. */
  WRITE: 11,
  /** Creates a node without a value. */
  MKDIR: 12,
  /** Removes a node and all below it. */
  RM: 13,
  /** Sets the permissions of a node. */
  SET_PERMS: 14,
  /** From the server alone: a watch fired. */
  WATCH_EVENT: 15,
  /** From the server alone: the request failed. */
  ERROR: 16,
  /** Whether a domain is connected to XenStore. */
  IS_DOMAIN_INTRODUCED: 17,
  /** A domain that was suspended goes on. */
  RESUME: 18,
  /** Gives a domain the rights of another. */
  SET_TARGET: 19,
  /** Drops all watches and transactions of the caller. */
  RESET_WATCHES: 21,
  /** A part of a list of children that is too long for one packet. */
  DIRECTORY_PART: 22,
  /** The features that the server, or a domain, has. */
  GET_FEATURE: 23,
  /** Sets the features of a domain. */
  SET_FEATURE: 24,
  /** The value of a quota, or the names of all. */
  GET_QUOTA: 25,
  /** Sets a quota. */
  SET_QUOTA: 26,
} as const;
/** One of the message types. */
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
