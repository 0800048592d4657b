/**
 * What clients send, as typed values: docs/misc/xenstore.txt, "Xenstore protocol details".
 * {@link encodeRequest} is the client's half; the server's is parse-request.ts.
 *
 *   READ, DIRECTORY, MKDIR, RM, GET_PERMS   path NUL
 *   WRITE                                   path NUL value
 *   DIRECTORY_PART                          path NUL offset NUL
 *   SET_PERMS                               path NUL (permission NUL)+
 *   WATCH, UNWATCH                          path NUL token NUL; WATCH may add: depth NUL
 *   TRANSACTION_START, RESET_WATCHES        NUL
 *   TRANSACTION_END                         "T" NUL or "F" NUL
 *   GET_DOMAIN_PATH, IS_DOMAIN_INTRODUCED, RELEASE, RESUME   domid NUL
 *   INTRODUCE                               domid NUL frame NUL event-channel NUL
 *   SET_TARGET                              domid NUL target domid NUL
 *   CONTROL                                 (argument NUL)+
 *   GET_FEATURE                             [domid NUL]
 *   SET_FEATURE                             domid NUL features NUL
 *   GET_QUOTA                               [[domid NUL] quota NUL]
 *   SET_QUOTA                               [domid NUL] quota NUL value NUL
 */
import { encodeStrings, joinBytes } from './body.ts';
import { XsType } from './constants.ts';
import { XenStoreError } from './errors.ts';
import { formatDecimal, formatDomid } from './number.ts';
import { encodePacket } from './packet.ts';
import { checkAnyPath, checkNodePath } from './path.ts';
import { formatPermission, type Permission } from './permissions.ts';

/** A request whose body is the path of a node. */
export interface NodeRequest {
  /** Which request it is. */
  readonly type:
    | typeof XsType.READ
    | typeof XsType.DIRECTORY
    | typeof XsType.MKDIR
    | typeof XsType.RM;
  /** Absolute, or relative to the directory of the caller. */
  readonly path: string;
}

/** The permissions of a node, or of an event such as `@releaseDomain`. */
export interface GetPermsRequest {
  /** Which request it is. */
  readonly type: typeof XsType.GET_PERMS;
  /** Absolute or relative path of the node, or `@...`. */
  readonly path: string;
}

/** SET_PERMS. */
export interface SetPermsRequest {
  /** Which request it is. */
  readonly type: typeof XsType.SET_PERMS;
  /** Absolute or relative path of the node, or `@...`. */
  readonly path: string;
  /** At least one; the first names the owner and what is left for all others. */
  readonly permissions: readonly Permission[];
}

/** WRITE. */
export interface WriteRequest {
  /** Which request it is. */
  readonly type: typeof XsType.WRITE;
  /** Absolute, or relative to the directory of the caller. */
  readonly path: string;
  /** The new value, as bytes. */
  readonly value: Uint8Array;
}

/** A part of a list of children that is too long for one packet. */
export interface DirectoryPartRequest {
  /** Which request it is. */
  readonly type: typeof XsType.DIRECTORY_PART;
  /** Absolute, or relative to the directory of the caller. */
  readonly path: string;
  /** Where to begin, in bytes of the list `name NUL name NUL ...`. */
  readonly offsetBytes: number;
}

/** WATCH. */
export interface WatchRequest {
  /** Which request it is. */
  readonly type: typeof XsType.WATCH;
  /** Absolute or relative path of the node, or `@...`. */
  readonly path: string;
  /** What stands for the watch in its events. */
  readonly token: string;
  /** How many levels below the path to watch; only for servers that have it. Default: all. */
  readonly depth?: number | undefined;
}

/** UNWATCH. */
export interface UnwatchRequest {
  /** Which request it is. */
  readonly type: typeof XsType.UNWATCH;
  /** The path that was given with WATCH. */
  readonly path: string;
  /** The token that was given with WATCH. */
  readonly token: string;
}

/** A request without parameters. */
export interface BareRequest {
  /** Which request it is. */
  readonly type: typeof XsType.TRANSACTION_START | typeof XsType.RESET_WATCHES;
}

/** TRANSACTION_END: commits or aborts. */
export interface TransactionEndRequest {
  /** Which request it is. */
  readonly type: typeof XsType.TRANSACTION_END;
  /** Whether to keep the changes. */
  readonly commit: boolean;
}

/** A request about one domain. */
export interface DomainRequest {
  /** Which request it is. */
  readonly type:
    | typeof XsType.GET_DOMAIN_PATH
    | typeof XsType.IS_DOMAIN_INTRODUCED
    | typeof XsType.RELEASE
    | typeof XsType.RESUME;
  /** 0 to 65535. */
  readonly domid: number;
}

/** INTRODUCE: tells the server of a domain. */
export interface IntroduceRequest {
  /** Which request it is. */
  readonly type: typeof XsType.INTRODUCE;
  /** 0 to 65535. */
  readonly domid: number;
  /** Frame number of the domain's XenStore page. */
  readonly frame: number;
  /** Port of the event channel by which the domain is told. */
  readonly eventChannelPort: number;
}

/** SET_TARGET. */
export interface SetTargetRequest {
  /** Which request it is. */
  readonly type: typeof XsType.SET_TARGET;
  /** The domain that gets the rights, 0 to 65535. */
  readonly domid: number;
  /** The domain whose rights it gets, 0 to 65535. */
  readonly targetDomid: number;
}

/** CONTROL: a command for the server itself. */
export interface ControlRequest {
  /** Which request it is. */
  readonly type: typeof XsType.CONTROL;
  /** The command and its parameters. */
  readonly args: readonly string[];
}

/** GET_FEATURE. */
export interface GetFeatureRequest {
  /** Which request it is. */
  readonly type: typeof XsType.GET_FEATURE;
  /** Default: what the server itself supports. */
  readonly domid?: number | undefined;
}

/** SET_FEATURE. */
export interface SetFeatureRequest {
  /** Which request it is. */
  readonly type: typeof XsType.SET_FEATURE;
  /** 0 to 65535. */
  readonly domid: number;
  /** Bits, as the domain finds them in its XenStore page. */
  readonly features: number;
}

/** GET_QUOTA. */
export interface GetQuotaRequest {
  /** Which request it is. */
  readonly type: typeof XsType.GET_QUOTA;
  /** Default: the global value. Means nothing without `quota`. */
  readonly domid?: number | undefined;
  /** Default: list the names of all quotas. */
  readonly quota?: string | undefined;
}

/** SET_QUOTA. */
export interface SetQuotaRequest {
  /** Which request it is. */
  readonly type: typeof XsType.SET_QUOTA;
  /** Default: the global value. */
  readonly domid?: number | undefined;
  /** The name of the quota. */
  readonly quota: string;
  /** The new value. */
  readonly value: number;
}

/** Every request of the protocol; `type` tells them apart. */
export type XsRequest =
  | NodeRequest
  | GetPermsRequest
  | SetPermsRequest
  | WriteRequest
  | DirectoryPartRequest
  | WatchRequest
  | UnwatchRequest
  | BareRequest
  | TransactionEndRequest
  | DomainRequest
  | IntroduceRequest
  | SetTargetRequest
  | ControlRequest
  | GetFeatureRequest
  | SetFeatureRequest
  | GetQuotaRequest
  | SetQuotaRequest;

/**
 * The packet of a request, in the transaction `txId` (0: none).
 * @throws XenStoreError `EINVAL` for a bad path, permission, domain id or string, `E2BIG` if it
 *   does not fit into one packet.
 */
export function encodeRequest(request: XsRequest, reqId: number, txId = 0): Uint8Array {
  return encodePacket({ type: request.type, reqId, txId, payload: encodeBody(request) });
}

function encodeBody(request: XsRequest): Uint8Array {
  switch (request.type) {
    case XsType.READ:
    case XsType.DIRECTORY:
    case XsType.MKDIR:
    case XsType.RM:
      checkNodePath(request.path);
      return encodeStrings([request.path]);
    case XsType.GET_PERMS:
      checkAnyPath(request.path);
      return encodeStrings([request.path]);
    case XsType.SET_PERMS:
      checkAnyPath(request.path);
      if (request.permissions.length === 0) {
        throw new XenStoreError('EINVAL', 'A list of permissions needs at least its owner.');
      }
      return encodeStrings([request.path, ...request.permissions.map(formatPermission)]);
    case XsType.WRITE:
      checkNodePath(request.path);
      return joinBytes(encodeStrings([request.path]), request.value);
    case XsType.DIRECTORY_PART:
      checkNodePath(request.path);
      return encodeStrings([request.path, formatDecimal(request.offsetBytes)]);
    case XsType.WATCH:
      checkAnyPath(request.path);
      return encodeStrings([request.path, request.token, ...optionalDecimal(request.depth)]);
    case XsType.UNWATCH:
      checkAnyPath(request.path);
      return encodeStrings([request.path, request.token]);
    case XsType.TRANSACTION_START:
    case XsType.RESET_WATCHES:
      return encodeStrings(['']);
    case XsType.TRANSACTION_END:
      return encodeStrings([request.commit ? 'T' : 'F']);
    case XsType.GET_DOMAIN_PATH:
    case XsType.IS_DOMAIN_INTRODUCED:
    case XsType.RELEASE:
    case XsType.RESUME:
    case XsType.INTRODUCE:
    case XsType.SET_TARGET:
    case XsType.CONTROL:
    case XsType.GET_FEATURE:
    case XsType.SET_FEATURE:
    case XsType.GET_QUOTA:
    case XsType.SET_QUOTA:
      return encodeAdministration(request);
  }
}

/** The requests that only a privileged domain may send, and those about domains. */
type AdministrationRequest =
  | DomainRequest
  | IntroduceRequest
  | SetTargetRequest
  | ControlRequest
  | GetFeatureRequest
  | SetFeatureRequest
  | GetQuotaRequest
  | SetQuotaRequest;

function encodeAdministration(request: AdministrationRequest): Uint8Array {
  switch (request.type) {
    case XsType.GET_DOMAIN_PATH:
    case XsType.IS_DOMAIN_INTRODUCED:
    case XsType.RELEASE:
    case XsType.RESUME:
      return encodeStrings([formatDomid(request.domid)]);
    case XsType.INTRODUCE:
      return encodeStrings([
        formatDomid(request.domid),
        formatDecimal(request.frame),
        formatDecimal(request.eventChannelPort),
      ]);
    case XsType.SET_TARGET:
      return encodeStrings([formatDomid(request.domid), formatDomid(request.targetDomid)]);
    case XsType.CONTROL:
      return encodeStrings(request.args);
    case XsType.GET_FEATURE:
      return encodeStrings(optionalDomid(request.domid));
    case XsType.SET_FEATURE:
      return encodeStrings([formatDomid(request.domid), formatDecimal(request.features)]);
    case XsType.GET_QUOTA:
      if (request.quota === undefined) return encodeStrings([]);
      return encodeStrings([...optionalDomid(request.domid), request.quota]);
    case XsType.SET_QUOTA:
      return encodeStrings([
        ...optionalDomid(request.domid),
        request.quota,
        formatDecimal(request.value),
      ]);
  }
}

function optionalDecimal(value: number | undefined): string[] {
  return value === undefined ? [] : [formatDecimal(value)];
}

function optionalDomid(domid: number | undefined): string[] {
  return domid === undefined ? [] : [formatDomid(domid)];
}
