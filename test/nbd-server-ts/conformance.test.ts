// Goal: every rule of the protocol document for servers is kept, and others can be compared.
// Method: one table, held against this server over a Unix socket and over TCP, and against nbdkit
// and qemu-nbd where they are installed; what those do differently is told, not judged.

import { BufferBackend, NbdServer } from 'nbd-server-ts';
import t from 'tap';
import { chunkRows } from './conformance/chunk-rows.ts';
import { type RowResult, runConformance, type Target } from './conformance/dialogue.ts';
import { handshakeRows } from './conformance/handshake-rows.ts';
import { FOREIGN_KINDS } from './conformance/targets.ts';
import { transmissionRows } from './conformance/transmission-rows.ts';
import { missing } from './support/program.ts';
import { temporaryDirectory } from './support/test-server.ts';

const SIZE = 1024 * 1024;

async function holdTableAgainst(target: Target): Promise<RowResult[]> {
  const rows = [...handshakeRows(target), ...transmissionRows(target), ...chunkRows(target)];
  return runConformance(rows, target);
}

function describe({ row, outcome, detail }: RowResult): string {
  return `${outcome}: ${row.section}, ${row.level}: ${row.rule}${detail === '' ? '' : ` (${detail})`}`;
}

for (const kind of ['unix', 'tcp'] as const) {
  void t.test(`this server over ${kind}`, async (t) => {
    const server = new NbdServer({
      exports: [
        { name: 'disk', backend: new BufferBackend(new Uint8Array(SIZE)) },
        { name: 'locked', backend: new BufferBackend(new Uint8Array(SIZE)), isReadOnly: true },
      ],
    });
    t.teardown(() => server.close({ drainMs: 0 }));
    const path = `${temporaryDirectory(t)}/s`;
    const bound = await server.listen(kind === 'unix' ? { path } : { port: 0 });
    const results = await holdTableAgainst({
      address: bound.kind === 'tcp' ? { host: bound.host, port: bound.port } : { path },
      exportName: 'disk',
      sizeBytes: SIZE,
      unknownName: 'no such export',
      readOnlyName: 'locked',
    });
    for (const result of results) t.equal(result.outcome, 'kept', describe(result));
  });
}

for (const kind of FOREIGN_KINDS) {
  void t.test(kind.name, { skip: missing(kind.program) }, async (t) => {
    const foreign = await kind.start(temporaryDirectory(t));
    t.teardown(() => foreign.stop());
    const results = await holdTableAgainst(foreign.target);
    const kept = results.filter((result) => result.outcome === 'kept');
    for (const result of results) if (result.outcome === 'broken') t.comment(describe(result));
    const skipped = results.filter((result) => result.outcome === 'skipped').length;
    t.comment(`${kind.name}: ${kept.length} kept, ${skipped} skipped, of ${results.length}`);
    t.ok(kept.length > results.length / 2, 'the table is about NBD');
  });
}
