/**
 * What is wrong with the answer to a READ, or to a BLOCK_STATUS (doc/proto.md,
 * "NBD_REPLY_TYPE_BLOCK_STATUS"), sharing no code with the server. That a range reads as zeroes is
 * a claim like that of a read which has returned zeroes, and is judged in the same way.
 */

import type { DiskModel } from './disk-model.ts';
import { constantBytes } from './payloads.ts';

const STATE_ZERO = 2;

interface Question {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly beganAt: number;
}

/** What is wrong with the data of a READ; undefined when nothing is. */
export function checkData(data: Buffer, request: Question, model: DiskModel): string | undefined {
  const { offset, lengthBytes, beganAt } = request;
  if (data.length !== lengthBytes) return `${data.length} bytes`;
  return model.checkRead(offset, data, beganAt, model.now());
}

/** What is wrong with the payload of an answer; undefined when nothing is. */
export function checkStatus(
  payload: Buffer,
  isExtended: boolean,
  request: Question,
  model: DiskModel,
): string | undefined {
  const prefixBytes = isExtended ? 8 : 4;
  const extentBytes = isExtended ? 16 : 8;
  const count = (payload.length - prefixBytes) / extentBytes;
  if (!Number.isInteger(count) || count < 1) return `${payload.length} bytes of extents`;
  if (isExtended && payload.readUInt32BE(4) !== count) return 'a wrong number of extents';
  let at = request.offset;
  for (let index = 0; index < count; index++) {
    const place = prefixBytes + index * extentBytes;
    const width = extentBytes / 2;
    const lengthBytes = Number(payload.readBigUInt64BE(place) >> (isExtended ? 0n : 32n));
    const flags = payload.readUInt32BE(place + width + width - 4);
    if (lengthBytes === 0) return 'an empty extent';
    if (at + lengthBytes > request.offset + request.lengthBytes) return 'too long an extent';
    if ((flags & ~STATE_ZERO) !== 0) return `the flags ${flags}`;
    if (flags === STATE_ZERO) {
      const zeroes = constantBytes(0, lengthBytes);
      const wrong = model.checkRead(at, zeroes, request.beganAt, model.now());
      if (wrong !== undefined) return `zeroes at ${at}+${lengthBytes}: ${wrong}`;
    }
    at += lengthBytes;
  }
  return undefined;
}
