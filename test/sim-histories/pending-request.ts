/** A request that a client waits for, and what it has been sent of its answer. */

import { Cmd, CmdFlag } from '../support/nbd-wire.ts';
import type { ModelWrite } from './disk-model.ts';
import type { Reply } from './reply-parser.ts';

export interface PendingRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly isFua: boolean;
  readonly write: ModelWrite | undefined;
  readonly read: { readonly beganAt: number } | undefined;
  readonly beganAt: number;
  /** What has come of its data in chunks before the last. */
  readonly pieces: Buffer[];
}

/** Adds the data of a chunk to what came before it; returns what is wrong with that. */
export function takePiece(pending: PendingRequest, reply: Reply): string | undefined {
  const { command, flags, offset, pieces } = pending;
  if (command !== Cmd.READ) return reply.isLast ? undefined : 'it is no read, and has pieces';
  if (reply.errno !== 0) return undefined;
  const at = offset + pieces.reduce((sum, { length }) => sum + length, 0);
  if (reply.offset !== undefined && reply.offset !== at)
    return `data of ${reply.offset}, not ${at}`;
  if (!reply.isLast && (flags & CmdFlag.DF) !== 0) return 'it is fragmented';
  pieces.push(Buffer.from(reply.data));
  return undefined;
}
