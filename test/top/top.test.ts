/**
 * Goal: `top` on a real daemon: one look as text and as JSON, a live screen on a terminal that is
 * left as it was found, and one line when there is nobody to look at.
 */
import t from 'tap';
import { loggedSoon, startSimulated } from '../daemon/support/simulated.ts';
import { runXenblkNbd, XENBLK_NBD } from '../support/daemon.ts';
import { findProgram, runProgram } from '../support/program.ts';

const SCRIPT = findProgram('script');

void t.test('a daemon', async (t) => {
  const { daemon, open } = await startSimulated(t, ['--metrics', '127.0.0.1:0', '--queues', '1']);
  const [line] = await loggedSoon(daemon, 'metrics-open');
  const address = new URL(String(line?.['address'])).host;
  const client = await open();

  const text = await runXenblkNbd(['top', address]);
  t.equal(text.status, 0, text.stderr);
  t.match(text.stdout, /^xenblk-nbd .*\nxvda, 8 MiB: serving\n(?:.*\n)*clients +1\n/);
  const json = await runXenblkNbd(['top', address, '--json']);
  t.match(JSON.parse(json.stdout), {
    report: { pid: daemon.pid, clients: [{ vbd: 'xvda' }] },
    sample: { vbds: [{ name: 'xvda', slotCount: 128 }] },
  });

  if (SCRIPT === undefined) return t.comment('script(1) is not installed: no terminal');
  // A terminal of 80 by 24, in which `q` is typed after a while.
  const command = `stty cols 80 rows 24; ${process.execPath} ${XENBLK_NBD} top ${address}`;
  const typed = `(sleep 4; printf q) | ${SCRIPT} -qec '${command}' /dev/null`;
  const screen = await runProgram('/bin/sh', ['-c', typed], { timeoutMs: 60_000 });
  t.equal(screen.status, 0, screen.stderr);
  t.ok(screen.stdout.startsWith('\x1b[?1049h\x1b[?25l'), 'on a screen of its own');
  t.match(screen.stdout, /xvda, 8 MiB: serving.*q: quit/s);
  t.ok(screen.stdout.trimEnd().endsWith('\x1b[?25h\x1b[?1049l'), 'which is left at the end');
  await client.disconnect();
});

void t.test('one of its own', async (t) => {
  const { status, stdout, stderr } = await runXenblkNbd(['top', '--simulate', '1M', '--json']);
  t.equal(status, 0, stderr);
  t.match(JSON.parse(stdout), { report: { vbds: [{ name: 'xvda', sizeBytes: 2 ** 20 }] } });
  const missing = await runXenblkNbd(['top', '--simulate', '/nowhere']);
  t.match(missing, { status: 1, stderr: /no such file.*\n.*simulated daemon did not start\n$/ });
});

void t.test('nobody there', async (t) => {
  const rows: readonly (readonly [args: string[], status: number, says: RegExp])[] = [
    [['127.0.0.1:1'], 1, /no daemon answers at 127\.0\.0\.1:1 \(ECONNREFUSED\)/],
    [['/nowhere/x.metrics'], 1, /no daemon answers at \/nowhere\/x\.metrics \(ENOENT\)/],
    [['nonsense'], 2, /nonsense is not an address/],
    [['x:1', '--simulate', '1M'], 2, /leave out the address/],
  ];
  for (const [args, status, says] of rows) {
    const result = await runXenblkNbd(['top', ...args]);
    t.equal(result.status, status, result.stderr);
    t.match(result.stderr, says);
    t.match(result.stderr, /^xenblk-nbd: [^\n]*\n$/);
  }
});
