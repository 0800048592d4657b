/** A trace as fio replays it: its iolog of version 3 (fio(1), "Trace file format"). */

import { NbdCmd } from 'nbd-server-ts/protocol';
import type { TraceRecord } from './trace-reader.ts';

const ACTIONS: ReadonlyMap<number, string> = new Map<number, string>([
  [NbdCmd.READ, 'read'],
  [NbdCmd.WRITE, 'write'],
  [NbdCmd.FLUSH, 'sync'],
  [NbdCmd.TRIM, 'trim'],
  // fio knows no zeroing: it writes as much.
  [NbdCmd.WRITE_ZEROES, 'write'],
]);

/**
 * Lines of the log, for requests that were answered well and that fio can make. fio needs them in
 * the order in which they came, so all of them are held until the last was read.
 *
 * @param device - the name that the log has for the disk; fio's --replay_redirect overrides it.
 */
export async function* toFioLog(
  records: AsyncIterable<TraceRecord>,
  device: string,
): AsyncGenerator<string> {
  const requests: { readonly atMs: number; readonly action: string }[] = [];
  for await (const { command, atMs, latencyMs, offset, lengthBytes, errno } of records) {
    const name = ACTIONS.get(command);
    if (name === undefined || errno !== 0 || (lengthBytes === 0 && name !== 'sync')) continue;
    requests.push({ atMs: atMs - latencyMs, action: `${name} ${offset} ${lengthBytes}` });
  }
  requests.sort((one, other) => one.atMs - other.atMs);
  const startMs = requests[0]?.atMs ?? 0;
  yield 'fio version 3 iolog';
  yield `0 ${device} add`;
  yield `0 ${device} open`;
  let lastMs = 0;
  for (const { atMs, action } of requests) {
    lastMs = Math.round(atMs - startMs);
    yield `${lastMs} ${device} ${action}`;
  }
  yield `${lastMs} ${device} close`;
}
