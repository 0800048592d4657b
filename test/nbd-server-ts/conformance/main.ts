// Holds the conformance table against any listening server, and prints what it keeps.
//
//   node build/test/nbd-server-ts/conformance/main.js --unix PATH | --tcp HOST:PORT
//        [--export NAME] [--unknown NAME] [--read-only NAME]
//
// The export is written to. `--unknown` names an export that the server does not have.

import { parseArgs } from 'node:util';
import { type Address, RawClient } from '../support/raw-client.ts';
import { chunkRows } from './chunk-rows.ts';
import { runConformance, type Target } from './dialogue.ts';
import { handshakeRows } from './handshake-rows.ts';
import { transmissionRows } from './transmission-rows.ts';

async function sizeOf(address: Address, exportName: string): Promise<number> {
  const client = await RawClient.connect(address);
  await client.greet();
  const replies = await client.go(exportName);
  client.destroy();
  const info = replies.find((reply) => reply.type === 3 && reply.data.readUInt16BE(0) === 0);
  if (info === undefined) throw new Error(`The server has no export "${exportName}".`);
  return Number(info.data.readBigUInt64BE(2));
}

const { values } = parseArgs({
  options: {
    unix: { type: 'string' },
    tcp: { type: 'string' },
    export: { type: 'string', default: '' },
    unknown: { type: 'string', default: 'no such export' },
    'read-only': { type: 'string' },
  },
});
const [host = '127.0.0.1', port = '10809'] = (values.tcp ?? '').split(':');
const address: Address =
  values.unix === undefined ? { host, port: Number(port) } : { path: values.unix };
const readOnlyName = values['read-only'];
const target: Target = {
  address,
  exportName: values.export,
  sizeBytes: await sizeOf(address, values.export),
  unknownName: values.unknown,
  ...(readOnlyName === undefined ? {} : { readOnlyName }),
};
const rows = [...handshakeRows(target), ...transmissionRows(target), ...chunkRows(target)];
const results = await runConformance(rows, target);
for (const { row, outcome, detail } of results) {
  if (outcome === 'kept') continue;
  console.log(`${outcome}: ${row.section}, ${row.level}: ${row.rule} (${detail})`);
}
const count = (outcome: string): number =>
  results.filter((result) => result.outcome === outcome).length;
console.log(`${count('kept')} kept, ${count('broken')} broken, ${count('skipped')} skipped`);
process.exitCode = count('broken') > 0 ? 1 : 0;
