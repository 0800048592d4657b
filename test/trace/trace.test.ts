/**
 * Goal: a trace has every request that was answered, with its numbers; `trace` sums it up, prints
 * it and makes fio repeat it; a file that cannot be written costs the trace and nothing else.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TRACE_FIELDS, TraceField, TraceRing } from '../../src/dataplane/index.ts';
import { Operation } from '../../src/dataplane/operation.ts';
import { loggedSoon, makeFolder, startSimulated } from '../daemon/support/simulated.ts';
import { runXenblkNbd } from '../support/daemon.ts';
import { findProgram, runProgram } from '../support/program.ts';

const FIO = findProgram('fio');

void t.test('from the daemon to fio', async (t) => {
  const folder = makeFolder(t);
  const path = join(folder, 'trace');
  const { daemon, open } = await startSimulated(t, ['--trace', path]);
  const client = await open();
  const startedMs = Date.now();
  t.equal((await client.write(4096, Buffer.alloc(8192, 0x61))).error, 0);
  t.equal((await client.read(4096, 512)).error, 0);
  t.equal((await client.flush()).error, 0);
  t.not((await client.read(2 ** 33, 512)).error, 0);
  t.equal((await client.write(2 ** 20, Buffer.alloc(512, 0x62))).error, 0);
  await client.disconnect();
  await daemon.stop();

  const json = await runXenblkNbd(['trace', path, '--json']);
  t.equal(json.status, 0, json.stderr);
  const records = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number | string>);
  const [first] = records;
  t.match(records, [
    { vbd: 'xvda', client: 1, command: 1, offset: 4096, lengthBytes: 8192, errno: 0 },
    { command: 0, offset: 4096, lengthBytes: 512, errno: 0 },
    { command: 3, errno: 0 },
    { command: 0, offset: 2 ** 33, errno: 22 },
    { command: 1, offset: 2 ** 20, lengthBytes: 512, errno: 0 },
  ]);
  t.equal(records.length, 5);
  t.ok(Math.abs(Number(first?.['atMs']) - startedMs) < 60_000, 'in the time of the clock');
  t.ok(Number(first?.['latencyMs']) > 0);

  const text = await runXenblkNbd(['trace', path, '--print']);
  t.match(
    text.stdout,
    /^\d{4}-\S+Z xvda client 1 write offset 4096 length 8192 \d+\.\d{3} ms ok\n/,
  );
  t.match(text.stdout, / read offset 8589934592 length 512 .* EINVAL\n/);
  const sums = await runXenblkNbd(['trace', path, '--vbd', 'xvda']);
  t.match(sums.stdout, /^5 requests in \d+\.\d s on xvda\n/);
  t.match(sums.stdout, /^write +2 +0\.0 +\d/m);
  t.match(sums.stdout, /^ +1 {2}read: EINVAL$/m);
  t.match(sums.stdout, /^ +1 {2}xvda at 1 MiB$/m);

  const log = await runXenblkNbd(['trace', path, '--fio']);
  t.match(
    log.stdout.replaceAll(/^\d+ /gm, 'T '),
    /^fio version 3 iolog\nT xvda add\nT xvda open\nT xvda write 4096 8192\nT xvda read 4096 512\n/,
  );
  if (FIO === undefined) return t.comment('fio is not installed');
  const disk = join(folder, 'disk');
  writeFileSync(disk, Buffer.alloc(2 * 2 ** 20));
  writeFileSync(join(folder, 'log'), log.stdout);
  const args = [`--read_iolog=${join(folder, 'log')}`, `--replay_redirect=${disk}`];
  const fio = await runProgram(FIO, ['--name=replay', '--ioengine=psync', ...args], {
    cwd: folder,
  });
  t.equal(fio.status, 0, fio.stderr + fio.stdout);
  const replayed = readFileSync(disk);
  t.ok(
    replayed.subarray(4096, 12_288).some((byte) => byte !== 0),
    'fio wrote where we had written',
  );
  t.ok(replayed.subarray(2 ** 20, 2 ** 20 + 512).some((byte) => byte !== 0));
  t.ok(
    replayed.subarray(0, 4096).every((byte) => byte === 0),
    'and nowhere else',
  );
});

void t.test('a file that cannot be written', async (t) => {
  const { daemon, open } = await startSimulated(t, ['--trace', '/nowhere/trace']);
  const client = await open();
  t.equal((await client.write(0, Buffer.alloc(4096))).error, 0, 'the I/O goes on');
  const lines = await loggedSoon(daemon, 'trace-stopped');
  t.match(lines, [{ path: '/nowhere/trace', reason: /ENOENT/ }]);
  await client.disconnect();
  await daemon.stop();
});

void t.test('files that are no trace', async (t) => {
  const folder = makeFolder(t);
  const other = join(folder, 'other');
  writeFileSync(other, 'hello\n');
  const newer = join(folder, 'newer');
  writeFileSync(newer, '{"format":"xenblk-nbd-trace","version":2,"startedMs":1,"vbds":[]}\n');
  const cut = join(folder, 'cut');
  const header = '{"format":"xenblk-nbd-trace","version":1,"startedMs":1,"vbds":["xvdb"]}\n';
  writeFileSync(cut, Buffer.concat([Buffer.from(header), Buffer.alloc(36), Buffer.alloc(35)]));
  const rows: readonly (readonly [args: string[], status: number, says: RegExp])[] = [
    [[join(folder, 'missing')], 1, /cannot read .*missing: ENOENT/],
    [[other], 1, /is no trace: give a file that `serve --trace` has written/],
    [[newer], 1, /is a trace of version 2, and this program reads 1/],
    [[cut, '--vbd', 'xvdz'], 2, /the trace is about xvdb/],
    [[cut, '--fio', '--print'], 2, /give one of them/],
  ];
  for (const [args, status, says] of rows) {
    const result = await runXenblkNbd(['trace', ...args]);
    t.equal(result.status, status, result.stderr);
    t.match(result.stderr, says);
    t.match(result.stderr, /^xenblk-nbd: [^\n]*\n$/, 'one line');
  }
  t.match((await runXenblkNbd(['trace', cut])).stdout, /^1 requests in/, 'what is whole is read');
});

void t.test('a main thread that does not come by', async (t) => {
  const lane = new TraceRing();
  const main = new TraceRing(lane.shared);
  const operation = new Operation(0);
  const fill = (count: number, client: number): void => {
    for (let i = 0; i < count; i++) lane.record(operation, client, i, 0);
  };
  fill(65_536 + 100, 7);
  t.equal(main.takeDropped(), 100);
  t.equal(main.takeDropped(), 0);
  let seen = 0;
  const drain = (client: number): void =>
    main.drain((record) => {
      if (record[TraceField.CLIENT] === client && record.length === TRACE_FIELDS) seen += 1;
    });
  drain(7);
  t.equal(seen, 65_536);
  seen = 0;
  fill(1000, 8);
  drain(8);
  t.equal(seen, 1000, 'places are used again');
});
