/**
 * The block interface of Xen as pure code: rings, requests and responses, XenStore keys, device
 * numbers and states, for both ends. No I/O, no imports from outside this folder.
 */

export {
  BackendKey,
  DISK_KEYS,
  type DiscardProperties,
  type DiskProperties,
  parseDiskProperties,
  parseSectors,
  parseTransportLimits,
  TRANSPORT_KEYS,
  type TransportLimits,
} from './backend-keys.ts';
export { DeviceNameError, formatDeviceNumber, parseDeviceNumber } from './device-number.ts';
export {
  encodeFrontendKeys,
  FrontendKey,
  type FrontendOffer,
  type FrontendRequest,
  isConnectionKey,
  parseFrontendKeys,
  type QueueOffer,
} from './frontend-keys.ts';
export { KeyError, type KeyValues, parseFlagKey, parseNumberKey } from './keys.ts';
export {
  BlkifAbi,
  type BlkifLayout,
  blkifLayout,
  hostAbi,
  parseBlkifAbi,
  RING_HEADER_BYTES,
  slotCount,
} from './layout.ts';
export {
  BLKIF_DISCARD_SECURE,
  BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST,
  BLKIF_MAX_SEGMENTS_PER_REQUEST,
  BlkifOp,
  BlkifStatus,
  blkifOpName,
  blkifStatusName,
  GRANT_PAGE_BYTES,
  isBlkifStatus,
  MAX_INDIRECT_SEGMENTS,
  MAX_RING_PAGE_ORDER,
  RING_SECTOR_BYTES,
  RING_SECTORS_PER_PAGE,
  SEGMENT_BYTES,
  SEGMENTS_PER_INDIRECT_PAGE,
  VdiskInfo,
} from './protocol.ts';
export {
  type BlkifRequest,
  copyRequest,
  createRequest,
  decodeRequest,
  decodeSegments,
  encodeDirectRequest,
  encodeDiscard,
  encodeEmptyBarrier,
  encodeFlush,
  encodeIndirectGref,
  encodeIndirectRequest,
  encodeSegment,
  requestedOperation,
  segmentOffset,
} from './request.ts';
export {
  type BlkifResponse,
  createResponse,
  decodeResponse,
  encodeResponse,
  responseFault,
} from './response.ts';
export {
  BackRing,
  createRingArea,
  FrontRing,
  RING_BROKEN,
  type RingArea,
  type RingPlacement,
} from './ring.ts';
export { passesEvent, ringAdvance, ringDistance } from './ring-index.ts';
export { INVALID_U64 } from './u64.ts';
export {
  formatXenbusState,
  parseXenbusState,
  XenbusState,
  xenbusStateName,
} from './xenbus-state.ts';
