// Goal: the lane keeps every rule of the NBD protocol document for servers, as the server of
// nbd-server-ts does: the same table is held against both.
import t from 'tap';
import { chunkRows } from '../nbd-server-ts/conformance/chunk-rows.ts';
import { type Row, runConformance } from '../nbd-server-ts/conformance/dialogue.ts';
import { handshakeRows } from '../nbd-server-ts/conformance/handshake-rows.ts';
import { transmissionRows } from '../nbd-server-ts/conformance/transmission-rows.ts';
import { MIB, serveFile } from '../support/served-file.ts';

void t.test('the protocol document, row by row', async (t) => {
  const { daemon, address } = await serveFile(t, MIB, ['--export', 'disk']);
  const locked = await serveFile(t, MIB, ['--export', 'locked', '--read-only']);
  const target = {
    address,
    exportName: 'disk',
    sizeBytes: MIB,
    unknownName: 'no such export',
  };
  const rows = [...handshakeRows(target), ...transmissionRows(target), ...chunkRows(target)];
  const isForLocked = (row: Row): boolean => row.needs?.includes('readOnly') === true;
  const results = [
    ...(await runConformance(
      rows.filter((row) => !isForLocked(row)),
      target,
    )),
    ...(await runConformance(rows.filter(isForLocked), {
      ...target,
      address: locked.address,
      readOnlyName: 'locked',
    })),
  ];
  t.equal(results.length, rows.length);
  for (const { row, outcome, detail } of results) {
    const what = `${row.section}, ${row.level}: ${row.rule}${detail === '' ? '' : ` (${detail})`}`;
    t.equal(outcome, 'kept', what);
  }
  await daemon.stop();
  await locked.daemon.stop();
});
