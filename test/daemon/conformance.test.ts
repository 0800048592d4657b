// Goal: the lane keeps every rule of the NBD protocol document for servers, as the server of
// nbd-server-ts does: the same table is held against both.
import t from 'tap';
import { chunkRows } from '../nbd-server-ts/conformance/chunk-rows.ts';
import { runConformance } from '../nbd-server-ts/conformance/dialogue.ts';
import { handshakeRows } from '../nbd-server-ts/conformance/handshake-rows.ts';
import { transmissionRows } from '../nbd-server-ts/conformance/transmission-rows.ts';
import { MIB, serveFile } from '../support/served-file.ts';

void t.test('the protocol document, row by row', async (t) => {
  const { daemon, address } = await serveFile(t, MIB, ['--export', 'disk']);
  const target = {
    address,
    exportName: 'disk',
    sizeBytes: MIB,
    unknownName: 'no such export',
  };
  const rows = [...handshakeRows(target), ...transmissionRows(target), ...chunkRows(target)];
  for (const { row, outcome, detail } of await runConformance(rows, target)) {
    const what = `${row.section}, ${row.level}: ${row.rule}${detail === '' ? '' : ` (${detail})`}`;
    if (outcome === 'skipped') t.comment(`skipped: ${what}`);
    else t.equal(outcome, 'kept', what);
  }
  await daemon.stop();
});
