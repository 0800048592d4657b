/**
 * The XenStore wire protocol as a pure codec, for clients and servers: no I/O, no clocks, no state
 * but the framer's. Exported as `xenstore-client/wire`.
 *
 * A server: push bytes into a {@link PacketFramer}, {@link parseRequest} each packet, answer with
 * {@link encodeReply}, and {@link encodeWatchEvent} when something changes. A client: the mirror
 * image, {@link encodeRequest}, {@link parseReply} and {@link parseWatchEvent}.
 */
export {
  DOMID_MAX,
  isXsErrorName,
  nameOfXsType,
  XENSTORE_ABS_PATH_MAX,
  XENSTORE_HEADER_SIZE,
  XENSTORE_PAYLOAD_MAX,
  XENSTORE_REL_PATH_MAX,
  type XsErrorName,
  XsType,
  xsErrorNames,
} from './constants.ts';
export {
  XenStoreError,
  type XenStoreErrorCode,
  type XenStoreErrorOptions,
  XenStoreProtocolError,
} from './errors.ts';
export { PacketFramer } from './framer.ts';
export { formatDomid, parseDecimal, parseDomid } from './number.ts';
export { decodePacket, encodePacket, type Packet } from './packet.ts';
export { parseRequest } from './parse-request.ts';
export {
  checkAnyPath,
  checkNodePath,
  describePathFault,
  INTRODUCE_DOMAIN_PATH,
  isValidPath,
  type PathKind,
  pathKindOf,
  RELEASE_DOMAIN_PATH,
  resolvePath,
} from './path.ts';
export {
  formatPermission,
  type Permission,
  type PermissionAccess,
  parsePermission,
} from './permissions.ts';
export {
  type DirectoryPartReply,
  type DirectoryReply,
  type ErrorReply,
  encodeReply,
  encodeWatchEvent,
  type GetDomainPathReply,
  type GetPermsReply,
  type IsDomainIntroducedReply,
  type OkReply,
  parseReply,
  parseWatchEvent,
  type ReadReply,
  sliceDirectory,
  type TextReply,
  type TransactionStartReply,
  type WatchEvent,
  type XsReply,
} from './reply.ts';
export {
  type BareRequest,
  type ControlRequest,
  type DirectoryPartRequest,
  type DomainRequest,
  encodeRequest,
  type GetFeatureRequest,
  type GetPermsRequest,
  type GetQuotaRequest,
  type IntroduceRequest,
  type NodeRequest,
  type SetFeatureRequest,
  type SetPermsRequest,
  type SetQuotaRequest,
  type SetTargetRequest,
  type TransactionEndRequest,
  type UnwatchRequest,
  type WatchRequest,
  type WriteRequest,
  type XsRequest,
} from './request.ts';
