/**
 * Goal: the commands as people and programs use them: a table or JSON on stdout, one line on stderr
 * when it cannot be, and the exit code.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeFolder } from '../daemon/support/simulated.ts';
import { runXenblkNbd } from '../support/daemon.ts';

void t.test('list', async (t) => {
  const text = await runXenblkNbd(['list', '--simulate', '64M']);
  t.equal(text.status, 0, text.stderr);
  t.match(text.stdout, /^NAME .*DRIVEN BY\nxvda {2}51712 .* w .*Initialising\/InitWait +free\n$/);
  const disk = join(makeFolder(t), 'disk.raw');
  writeFileSync(disk, Buffer.alloc(4096));
  const json = await runXenblkNbd(['list', '--json', '--simulate', disk]);
  t.equal(json.status, 0, json.stderr);
  t.match(JSON.parse(json.stdout), [
    {
      name: 'xvda',
      number: 51712,
      sizeBytes: null,
      mode: 'w',
      state: 'Initialising',
      backend: { type: 'vbd', domain: 0, params: new RegExp(disk), state: 'InitWait' },
      drivenBy: { kind: 'free' },
    },
  ]);
});

void t.test('info', async (t) => {
  const args = ['info', '51728', '--simulate', '64M', '--queues', '4', '--simulate-features'];
  const features = 'queues=2,ring-page-order=1,indirect=64';
  const json = await runXenblkNbd([...args, features, '--json']);
  t.equal(json.status, 0, json.stderr);
  t.match(JSON.parse(json.stdout), {
    name: 'xvdb',
    offers: { maxQueues: 2, maxRingPageOrder: 1, maxIndirectSegments: 64 },
    disk: null,
    wouldNegotiate: {
      queues: 2,
      ringPages: 2,
      ringSlots: 64,
      indirectSegments: 64,
      requestBytes: 262_144,
      cuts: [/Queues cut from 4 to 2/, /order cut from 2 to 1/, /segments cut from 256 to 64/],
    },
    faults: [],
  });
  const text = await runXenblkNbd([...args, features]);
  t.match(text.stdout, /^xvdb \(51728\), disk, mode w\n/);
  t.match(text.stdout, / {2}rings {7}2 rings of 2 pages, 64 slots each\n/);
});

void t.test('doctor', async (t) => {
  const text = await runXenblkNbd(['doctor', '--simulate', '64M']);
  t.equal(text.status, 0, text.stderr);
  t.match(text.stdout, /^ok {4}Node v.*\n(?:.*\n)*ok {4}xvda \(51712\): free\n/);
  t.match(text.stdout, /\n\d+ checks are in order\n$/);
  const args = ['doctor', '--simulate', '64M', '--json', '--max-connections', '65536'];
  const json = await runXenblkNbd(args);
  const checks = JSON.parse(json.stdout) as { id: string; status: string; mend?: string }[];
  const files = checks.find(({ id }) => id === 'open-files');
  t.equal(json.status, files?.status === 'failed' ? 1 : 0);
  if (files?.status === 'failed') t.match(json.stderr, /^xenblk-nbd: 1 of \d+ checks failed.*\n$/);
});

void t.test('what cannot be', async (t) => {
  const rows: readonly (readonly [args: string[], status: number, says: RegExp])[] = [
    [['list', '--simulate', '/nowhere'], 1, /no such file/],
    [['list', 'xvda'], 2, /too many arguments/],
    [['info', '--simulate', '1M'], 2, /missing required argument 'vbd'/],
    [['info', 'xvda', '--queues', '0'], 2, /--queues takes a whole number/],
    [['info', 'nonsense', '--simulate', '1M'], 2, /needs a name such as xvdb/],
    [['doctor', '--simulate-features', 'flush'], 2, /needs --simulate/],
    [['doctor', 'xvda', 'xvdb', '--simulate', '/tmp/x'], 2, /a SIZE for several/],
    [['list', '--simulate', '1M', '--simulate-features', 'speed'], 2, /speed/],
  ];
  for (const [args, status, says] of rows) {
    const result = await runXenblkNbd(args);
    t.equal(result.status, status, `${args.join(' ')}: ${result.stderr}`);
    t.match(result.stderr, says);
    t.match(result.stderr, /^xenblk-nbd: [^\n]*\n$/, 'one line');
    t.equal(result.stdout, '');
  }
});
