// Acknowledged means durable: a reply to FLUSH, or to a request with FUA, leaves only after the
// file behind the simulated backend was synced. strace sees both, in order.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Daemon } from '../support/daemon.ts';
import { assertSameBytes, randomBytes, readFileRange } from '../support/disk-image.ts';
import { NbdClient, type Reply } from '../support/nbd-client.ts';
import { CmdFlag, Errno } from '../support/nbd-wire.ts';
import type { InteropCase } from './runner.ts';

const SIZE_BYTES = 4 * 1024 * 1024;
const BLOCK_BYTES = 4096;

/** `gDf\230` is the magic of a simple reply as strace prints it. */
const REPLY = /"gDf\\230/;
/** Of a file: at its end a process also syncs stdout and stderr, which are pipes here. */
const SYNC_DONE = /(?:fdatasync|fsync)\((?:[3-9]|\d\d+)\) += 0|(?:fdatasync|fsync) resumed>\) += 0/;
const SYNC_FAILED = /(?:fdatasync|fsync)\((?:[3-9]|\d\d+)\) += -1/;

/** Numbers of the lines that match. */
function linesThatMatch(lines: readonly string[], pattern: RegExp): number[] {
  return lines.flatMap((line, index) => (pattern.test(line) ? [index] : []));
}

export const durabilityCases: readonly InteropCase[] = [
  {
    name: 'strace: FLUSH and FUA are answered after the sync, a plain write without one',
    needs: ['strace'],
    isOurs: true,
    async run(context) {
      const trace = context.path('strace.txt');
      const socket = context.path('traced.sock');
      const calls = 'trace=fsync,fdatasync,write,writev,sendto,sendmsg';
      // -D makes strace the grandchild, so that our child is the daemon itself.
      const daemon = await Daemon.start(
        ['--simulate', context.image(SIZE_BYTES), '--unix', socket],
        ['strace', '-D', '-f', '-qq', '-e', calls, '-s', '16', '-o', trace],
      );
      const { client } = await NbdClient.open({ path: socket });
      const block = Buffer.alloc(BLOCK_BYTES, 0x44);
      const requests: readonly [what: string, isSynced: boolean, send: () => Promise<Reply>][] = [
        ['a plain write', false, () => client.write(0, block)],
        ['FLUSH', true, () => client.flush()],
        ['a FUA write', true, () => client.write(8192, block, CmdFlag.FUA)],
        ['a ragged FUA write', true, () => client.write(513, block, CmdFlag.FUA)],
        ['FUA zeroes', true, () => client.writeZeroes(4096, 5000, CmdFlag.FUA)],
        ['a FUA trim', true, () => client.trim(65536, 65536, CmdFlag.FUA)],
      ];
      for (const [what, , send] of requests) {
        assert.equal((await send()).error, Errno.OK, what);
      }
      await client.disconnect();
      await daemon.stop();

      const lines = readFileSync(trace, 'utf8').split('\n');
      assert.deepEqual(linesThatMatch(lines, SYNC_FAILED), [], 'failed syncs');
      const replies = linesThatMatch(lines, REPLY);
      assert.equal(replies.length, requests.length, 'replies seen by strace');
      let from = 0;
      for (const [index, [what, isSynced]] of requests.entries()) {
        const to = replies[index] ?? 0;
        const syncs = linesThatMatch(lines.slice(from, to), SYNC_DONE).length;
        if (isSynced) assert.ok(syncs > 0, `${what} was answered without a sync`);
        else assert.equal(syncs, 0, `${what} was answered after a sync that nobody asked for`);
        from = to;
      }
    },
  },
  {
    name: 'kill -9 of the server: what was acknowledged is in the file, and the next start serves it',
    isOurs: true,
    async run(context) {
      const image = context.image(SIZE_BYTES);
      const model = randomBytes(context.options.seed, SIZE_BYTES);
      const socket = context.path('killed.sock');
      const args = ['--simulate', image, '--unix', socket];
      for (let round = 0; round < 3; round++) {
        const daemon = await Daemon.start(args);
        const { client } = await NbdClient.open({ path: socket });
        assertSameBytes(await client.readOk(0, SIZE_BYTES), model, `before round ${round}`);
        const written = randomBytes(context.options.seed + 1 + round, 200_001);
        const reply = await client.write(round * 300_001, written, CmdFlag.FUA);
        assert.equal(reply.error, Errno.OK);
        written.copy(model, round * 300_001);
        daemon.kill('SIGKILL');
        await daemon.waitForEnd();
        await client.bytes.receiveEnd();
        client.bytes.destroy();
        assertSameBytes(readFileRange(image, 0, SIZE_BYTES), model, `after round ${round}`);
      }
    },
  },
];
