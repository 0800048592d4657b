/**
 * Replies to BLOCK_STATUS: one chunk for each context that the client has chosen, the last of them
 * marked as such. What fits there is sent from the operation's place in the header area; longer
 * ones from memory of their own, or cut short when there is none: a client asks for the rest.
 */

import {
  BLOCK_STATUS_EXT_PREFIX_BYTES,
  BLOCK_STATUS_PREFIX_BYTES,
  CHUNK_HEADER_BYTES,
  EXTENDED_CHUNK_HEADER_BYTES,
  EXTENT_BYTES,
  EXTENT_EXT_BYTES,
  type Extent,
  encodeBlockStatusExtPrefix,
  encodeExtent,
  encodeExtentExt,
  NbdErrno,
  NbdReplyFlag,
  NbdReplyType,
  shapeExtents,
} from 'nbd-server-ts/protocol';
import { allocateMemory, libc, type Memory } from '../sys/index.ts';
import type { LaneContexts } from './lane-contexts.ts';
import type { LaneCore } from './lane-core.ts';
import type { Operation } from './operation.ts';
import {
  encodeChunk,
  encodeReplyHeader,
  HEADER_SLOT_BYTES,
  type ReplyForm,
} from './reply-header.ts';

/** Extents of one context in one reply. */
const EXTENTS_MAX = 8192;

interface Report {
  readonly id: number;
  readonly extents: readonly Extent[];
}

export class StatusReplies {
  readonly #contexts: LaneContexts;
  /** Where a reply is put together; made when the first is asked for. */
  #scratch: (Memory & { readonly view: DataView }) | undefined;

  constructor(contexts: LaneContexts) {
    this.#contexts = contexts;
  }

  /** Does for a BLOCK_STATUS that is granted what `encodeReplyHeader` does for the others. */
  encode(operation: Operation, form: ReplyForm, core: Pick<LaneCore, 'headers' | 'engine'>): void {
    const { headers, engine } = core;
    const slot = operation.index * HEADER_SLOT_BYTES;
    const shortMax = extentsThatFit(HEADER_SLOT_BYTES, form);
    if (shortMax === 0) {
      operation.errno = NbdErrno.ENOMEM;
      encodeReplyHeader(headers.view, slot, operation, form);
      return;
    }
    const wantedMax = operation.isOneExtent ? 1 : EXTENTS_MAX;
    const reports = this.#ask(operation, form, wantedMax);
    operation.headerBytes = 0;
    operation.dataBytes = 0;
    if (reports.every(({ extents }) => extents.length <= shortMax)) {
      operation.headerBytes = encodeReports(headers.view, slot, operation, form, reports);
      return;
    }
    const scratch = this.#scratchFor(reports, form);
    const lengthBytes = encodeReports(scratch.view, 0, operation, form, reports);
    const address = engine.allocateParking(lengthBytes);
    if (address === 0) {
      const cut = reports.map(({ id, extents }) => ({ id, extents: extents.slice(0, shortMax) }));
      operation.headerBytes = encodeReports(headers.view, slot, operation, form, cut);
      return;
    }
    libc.memcpy(address, scratch.address, lengthBytes);
    // Given back with the operation, as the memory of a large read.
    operation.spillAddress = address;
    operation.spillBytes = lengthBytes;
    operation.dataBytes = lengthBytes;
  }

  #ask({ offset, lengthBytes }: Operation, form: ReplyForm, extentsMax: number): Report[] {
    return form.contexts.map(({ id, name }) => {
      const known = this.#contexts.get(name).extents(undefined, offset, lengthBytes);
      return { id, extents: shapeExtents(known, lengthBytes, extentsMax) };
    });
  }

  #scratchFor(reports: readonly Report[], form: ReplyForm): Memory & { readonly view: DataView } {
    const needBytes = reports.reduce(
      (sum, { extents }) => sum + chunkBytes(extents.length, form),
      0,
    );
    if (this.#scratch === undefined || this.#scratch.buffer.byteLength < needBytes) {
      // Never more than all contexts with as many extents as are reported.
      const memory = allocateMemory(form.contexts.length * chunkBytes(EXTENTS_MAX, form));
      this.#scratch = { ...memory, view: new DataView(memory.buffer) };
    }
    return this.#scratch;
  }
}

/** How many extents of each context fit when all contexts share `roomBytes`. */
function extentsThatFit(roomBytes: number, form: ReplyForm): number {
  const shareBytes = Math.floor(roomBytes / form.contexts.length);
  const extentBytes = form.isExtended ? EXTENT_EXT_BYTES : EXTENT_BYTES;
  return Math.max(0, Math.floor((shareBytes - chunkBytes(0, form)) / extentBytes));
}

function chunkBytes(extentCount: number, { isExtended }: ReplyForm): number {
  return isExtended
    ? EXTENDED_CHUNK_HEADER_BYTES + BLOCK_STATUS_EXT_PREFIX_BYTES + extentCount * EXTENT_EXT_BYTES
    : CHUNK_HEADER_BYTES + BLOCK_STATUS_PREFIX_BYTES + extentCount * EXTENT_BYTES;
}

/** Returns how many bytes it has written. */
function encodeReports(
  view: DataView,
  start: number,
  operation: Operation,
  form: ReplyForm,
  reports: readonly Report[],
): number {
  let at = start;
  const { isExtended } = form;
  const type = isExtended ? NbdReplyType.BLOCK_STATUS_EXT : NbdReplyType.BLOCK_STATUS;
  const headerBytes = isExtended ? EXTENDED_CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES;
  for (const [index, { id, extents }] of reports.entries()) {
    const flags = index === reports.length - 1 ? NbdReplyFlag.DONE : 0;
    const payloadBytes = chunkBytes(extents.length, form) - headerBytes;
    at += encodeChunk(view, at, operation, form, type, flags, payloadBytes);
    if (isExtended) encodeBlockStatusExtPrefix(view, at, id, extents.length);
    else view.setUint32(at, id);
    at += isExtended ? BLOCK_STATUS_EXT_PREFIX_BYTES : BLOCK_STATUS_PREFIX_BYTES;
    for (const extent of extents) {
      if (isExtended) encodeExtentExt(view, at, extent.lengthBytes, extent.flags);
      else encodeExtent(view, at, extent.lengthBytes, extent.flags);
      at += isExtended ? EXTENT_EXT_BYTES : EXTENT_BYTES;
    }
  }
  return at - start;
}
