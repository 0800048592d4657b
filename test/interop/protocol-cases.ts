// What no ordinary client sends: unknown commands and options, odd handshakes, bytes that make no
// sense. Driven by the tests' own client, byte by byte.
import assert from 'node:assert/strict';
import { randomBytes } from '../support/disk-image.ts';
import { eventually } from '../support/eventually.ts';
import { idleDescriptors } from '../support/idle-descriptors.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, Errno, Flag, goData, Opt, Rep, requestHeader } from '../support/nbd-wire.ts';
import { countDescriptors } from '../support/proc-stat.ts';
import type { InteropCase } from './runner.ts';

const SIZE_BYTES = 4 * 1024 * 1024;

/** Byte strings after which no server can go on: it must close, and only this connection. */
function hopelessBytes(seed: number): ReadonlyMap<string, Buffer> {
  const flags = Buffer.from([0, 0, 0, 3]);
  const option = (number: number, announced: number, data: Buffer): Buffer => {
    const header = Buffer.alloc(16);
    header.write('IHAVEOPT', 'latin1');
    header.writeUInt32BE(number, 8);
    header.writeUInt32BE(announced, 12);
    return Buffer.concat([header, data]);
  };
  const go = option(Opt.GO, 6, goData('', []));
  const badRequest = requestHeader({ type: Cmd.READ, length: 512 }, 1n);
  badRequest.writeUInt32BE(0xdeadbeef, 0);
  return new Map([
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
    ['unknown client flags', Buffer.from([0xff, 0xff, 0xff, 0xff])],
    ['64 KiB of 0xff', Buffer.alloc(65536, 0xff)],
    ['64 KiB of random bytes', randomBytes(seed, 65536)],
    ['an option with a wrong magic', Buffer.concat([flags, Buffer.alloc(16, 0x41)])],
    ['a request with a wrong magic', Buffer.concat([flags, go, badRequest])],
    ['random bytes in transmission', Buffer.concat([flags, go, randomBytes(seed + 1, 65536)])],
  ]);
}

export const protocolCases: readonly InteropCase[] = [
  {
    name: 'unknown commands are EINVAL and leave the connection in step',
    async run(context) {
      await context.serve(context.image(SIZE_BYTES));
      const expected = randomBytes(context.options.seed, SIZE_BYTES);
      const { client } = await NbdClient.open({ path: context.path('nbd0.sock') });
      for (const type of [8, 9, 77, 0x7fff, 0xffff]) {
        const reply = await client.request({ type, offset: 0, length: 512 });
        assert.equal(reply.error, Errno.EINVAL, `command ${type}`);
      }
      const blockStatus = await client.request({ type: Cmd.BLOCK_STATUS, length: 4096 });
      assert.equal(blockStatus.error, Errno.EINVAL, 'BLOCK_STATUS without a chosen context');
      assert.deepEqual(await client.readOk(511, 1026), expected.subarray(511, 1537));
      await client.disconnect();
    },
  },
  {
    name: 'offsets near 2^64 are out of range, not wrapped',
    async run(context) {
      await context.serve(context.image(SIZE_BYTES));
      const { client } = await NbdClient.open({ path: context.path('nbd0.sock') });
      for (const offset of [
        2n ** 64n - 1n,
        2n ** 64n - 512n,
        2n ** 63n,
        2n ** 53n,
        2n ** 53n + 1n,
      ]) {
        assert.equal((await client.read(offset, 1024)).error, Errno.EINVAL, `read at ${offset}`);
        const write = await client.write(offset, Buffer.alloc(1024));
        assert.ok(
          write.error === Errno.ENOSPC || write.error === Errno.EINVAL,
          `write at ${offset}`,
        );
        const zeroes = await client.writeZeroes(offset, 0xffffffff);
        assert.ok(zeroes.error !== Errno.OK, `zeroes at ${offset}`);
      }
      assert.equal((await client.read(0, 512)).error, Errno.OK);
      await client.disconnect();
    },
  },
  {
    name: 'a write past the end is ENOSPC, and one on a read-only export EPERM',
    isOurs: true,
    async run(context) {
      const image = context.image(SIZE_BYTES);
      await context.serve(image);
      await context.serve(image, { isReadOnly: true });
      const { client } = await NbdClient.open({ path: context.path('nbd0.sock') });
      assert.equal((await client.write(SIZE_BYTES - 1, Buffer.alloc(2))).error, Errno.ENOSPC);
      const readOnly = await NbdClient.open({ path: context.path('nbd1.sock') });
      assert.ok(readOnly.description.flags & Flag.READ_ONLY, 'READ_ONLY is set');
      for (const length of [0, 1, 512, 1_000_000]) {
        const reply = await readOnly.client.write(0, Buffer.alloc(length, 0x55));
        assert.equal(reply.error, Errno.EPERM, `write of ${length} bytes`);
      }
      assert.equal((await readOnly.client.read(0, 512)).error, Errno.OK);
      await client.disconnect();
      await readOnly.client.disconnect();
    },
  },
  {
    name: 'unknown options are refused with UNSUP, and GO works after them',
    async run(context) {
      await context.serve(context.image(SIZE_BYTES));
      const client = await NbdClient.connect({ path: context.path('nbd0.sock') });
      await client.greet();
      for (const option of [4, 99, 0x7fffffff]) {
        const [reply] = await client.option(option, Buffer.from('whatever'));
        assert.equal(reply?.type, Rep.ERR_UNSUP, `option ${option}`);
      }
      const [invalid] = await client.option(Opt.GO, Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0]));
      assert.equal(invalid?.type, Rep.ERR_INVALID, 'GO with a name longer than the option');
      const [list] = await client.option(Opt.LIST, Buffer.from('data'));
      assert.equal(list?.type, Rep.ERR_INVALID, 'LIST with data');
      const description = await client.go();
      assert.equal(description.sizeBytes, BigInt(SIZE_BYTES));
      assert.equal((await client.read(0, 512)).error, Errno.OK);
      await client.disconnect();
    },
  },
  {
    name: 'EXPORT_NAME with and without NO_ZEROES, and a client that is not fixed newstyle',
    async run(context) {
      await context.serve(context.image(SIZE_BYTES));
      for (const clientFlags of [3, 1, 0]) {
        const client = await NbdClient.connect({ path: context.path('nbd0.sock') });
        assert.equal((await client.greet(clientFlags)) & 3, 3, 'handshake flags');
        const description = await client.exportName();
        assert.equal(description.sizeBytes, BigInt(SIZE_BYTES), `client flags ${clientFlags}`);
        assert.equal((await client.read(1, 3)).error, Errno.OK);
        await client.disconnect();
      }
    },
  },
  {
    name: 'a handshake and a request that arrive byte by byte, and all in one piece',
    async run(context) {
      await context.serve(context.image(SIZE_BYTES));
      const expected = randomBytes(context.options.seed, 1024);
      const bytes = Buffer.concat([
        Buffer.from([0, 0, 0, 3]),
        Buffer.from('IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0', 'latin1'),
        requestHeader({ type: Cmd.READ, offset: 3, length: 1000 }, 5n),
      ]);
      for (const step of [1, bytes.length]) {
        const client = await NbdClient.connect({ path: context.path('nbd0.sock') });
        for (let at = 0; at < bytes.length; at += step) {
          client.bytes.send(bytes.subarray(at, at + step));
          // Lets each piece leave on its own.
          await new Promise((resolve) => setImmediate(resolve));
        }
        await client.bytes.receive(18);
        let reply = await client.receiveOptionReply(Opt.GO);
        while (reply.type === Rep.INFO) reply = await client.receiveOptionReply(Opt.GO);
        assert.equal(reply.type, Rep.ACK);
        const header = await client.bytes.receive(16);
        assert.equal(header.toString('hex'), '67446698000000000000000000000005');
        assert.deepEqual(await client.bytes.receive(1000), expected.subarray(3, 1003));
        client.bytes.destroy();
      }
    },
  },
  {
    name: 'garbage ends its own connection and no other',
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      const expected = randomBytes(context.options.seed, SIZE_BYTES);
      const { client } = await NbdClient.open({ path: context.path('nbd0.sock') });
      for (const [what, bytes] of hopelessBytes(context.options.seed)) {
        const garbage = await NbdClient.connect({ path: context.path('nbd0.sock') });
        garbage.bytes.send(bytes);
        await garbage.bytes.receiveEnd().catch((error: unknown) => {
          throw new Error(`after ${what}`, { cause: error });
        });
        garbage.bytes.destroy();
        assert.deepEqual(await client.readOk(4095, 4098), expected.subarray(4095, 8193), what);
        assert.equal(server.endedHow, undefined, what);
      }
      await client.disconnect();
    },
  },
  {
    name: 'clients that leave at each byte of the handshake and of a request leave nothing behind',
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      const address = { path: context.path('nbd0.sock') };
      const bytes = Buffer.concat([
        Buffer.from([0, 0, 0, 3]),
        Buffer.from('IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0', 'latin1'),
        requestHeader({ type: Cmd.WRITE, length: 16 }, 5n),
        Buffer.alloc(16, 0x77),
      ]);
      await idleDescriptors(server.pid, address);
      const { client } = await NbdClient.open(address);
      const before = countDescriptors(server.pid);
      for (let length = 0; length <= bytes.length; length++) {
        const leaver = await NbdClient.connect(address);
        leaver.bytes.send(bytes.subarray(0, length));
        if (length % 2 === 0) {
          // Half of them say goodbye to TCP politely, half of them drop everything.
          leaver.bytes.endSending();
          await leaver.bytes.receiveEnd();
        }
        leaver.bytes.destroy();
      }
      await eventually('descriptors of the clients that left are closed', 15_000, () =>
        countDescriptors(server.pid) <= before ? true : undefined,
      );
      assert.equal((await client.read(0, 512)).error, Errno.OK);
      await client.disconnect();
    },
  },
];
