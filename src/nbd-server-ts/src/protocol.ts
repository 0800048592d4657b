// nbd-server-ts/protocol: the sans-IO half of the package. Constants, request and reply codecs, the
// request check and the handshake machine; no sockets, no clocks, no threads.

export {
  CHUNK_HEADER_BYTES,
  EXTENDED_CHUNK_HEADER_BYTES,
  EXTENDED_REQUEST_BYTES,
  GREETING_BYTES,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_MAX_STRING_BYTES,
  NBD_PORT,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  NbdClientFlag,
  NbdCmd,
  NbdCmdFlag,
  NbdErrno,
  NbdFlag,
  NbdHandshakeFlag,
  NbdInfo,
  NbdOpt,
  NbdRep,
  NbdReplyFlag,
  NbdReplyType,
  NbdState,
  nbdCmdFlagNames,
  nbdCmdName,
  nbdErrnoName,
  nbdFlagNames,
  nbdInfoName,
  nbdOptName,
  nbdReplyTypeName,
  nbdRepName,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC_HIGH,
  OPTION_REPLY_MAGIC_LOW,
  REQUEST_BYTES,
  SIMPLE_REPLY_BYTES,
} from './constants.ts';
export type {
  ExportCatalog,
  ExportEntry,
} from './export-catalog.ts';
export {
  type Agreement,
  assertExportInfo,
  createExportInfo,
  DEFAULT_MAX_PAYLOAD_BYTES,
  DEFAULT_MAX_REQUEST_BYTES,
  type ExportInfo,
  SIMPLE_AGREEMENT,
  transmissionFlags,
} from './export-info.ts';
export type {
  NegotiationNext,
  NegotiationResult,
} from './handshake-state.ts';
export {
  DEFAULT_NEGOTIATION_LIMITS,
  Negotiation,
  type NegotiationLimits,
  type NegotiationOptions,
  type NegotiationStep,
} from './negotiation.ts';
export {
  ERROR_OFFSET_SUFFIX_BYTES,
  ERROR_PREFIX_BYTES,
  encodeChunkHeader,
  encodeErrorOffsetSuffix,
  encodeErrorPrefix,
  encodeExtendedChunkHeader,
  encodeOffsetDataPrefix,
  encodeOffsetHolePayload,
  encodeSimpleReply,
  encodeUint64,
  OFFSET_DATA_PREFIX_BYTES,
  OFFSET_HOLE_PAYLOAD_BYTES,
} from './reply.ts';
export {
  createRequest,
  decodeExtendedRequest,
  decodeRequest,
  type NbdRequest,
  requestPayloadBytes,
} from './request.ts';
export { checkRequest } from './request-check.ts';
