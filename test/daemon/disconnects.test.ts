// Goal: clients may vanish at any byte, be killed with a thousand requests under way, or close one
// side only: no hang, no descriptor left, no wrong byte for anybody.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { eventually } from '../support/eventually.ts';
import { idleDescriptors } from '../support/idle-descriptors.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Cmd, Errno, goData, Opt, requestHeader } from '../support/nbd-wire.ts';
import { countDescriptors } from '../support/proc-stat.ts';
import { MIB, serveFile } from '../support/served-file.ts';

function option(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.write('IHAVEOPT', 'latin1');
  head.writeUInt32BE(type, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

function lettersOf(text: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return Buffer.concat([length, Buffer.from(text)]);
}

/** Flags, structured replies, a context, and GO. */
const HANDSHAKE = Buffer.concat([
  Buffer.from([0, 0, 0, 3]),
  option(Opt.STRUCTURED_REPLY, Buffer.alloc(0)),
  option(
    Opt.SET_META_CONTEXT,
    Buffer.concat([lettersOf(''), Buffer.from([0, 0, 0, 1]), lettersOf('base:allocation')]),
  ),
  option(Opt.GO, goData('', [0, 3])),
]);

async function backToNormal(pid: number, before: number): Promise<void> {
  await eventually('the descriptors of those that left are closed', 30_000, () =>
    countDescriptors(pid) <= before ? true : undefined,
  );
}

void t.test('at each byte of the handshake', async (t) => {
  const { daemon, address, open } = await serveFile(t, MIB);
  const before = await idleDescriptors(daemon.pid, address);
  for (let cut = 0; cut <= HANDSHAKE.length; cut++) {
    for (const isPolite of [true, false]) {
      const client = await NbdClient.connect(address);
      client.bytes.send(HANDSHAKE.subarray(0, cut));
      if (isPolite) {
        client.bytes.endSending();
        await client.bytes.receiveEnd();
      }
      client.bytes.destroy();
    }
  }
  await backToNormal(daemon.pid, before);
  const good = await open();
  t.equal((await good.readOk(0, 512)).length, 512);
  await good.disconnect();
  await daemon.stop();
});

void t.test('at each byte of a request, with and without its end', async (t) => {
  const { daemon, address, open } = await serveFile(t, MIB);
  const before = await idleDescriptors(daemon.pid, address);
  const payload = Buffer.alloc(600, 7);
  const request = Buffer.concat([
    requestHeader({ type: Cmd.WRITE, offset: 100, payload }, 1n),
    payload,
  ]);
  for (let cut = 0; cut <= request.length; cut += cut < 40 ? 1 : 7) {
    for (const isPolite of [true, false]) {
      const client = await open();
      client.bytes.send(request.subarray(0, cut));
      if (isPolite) {
        client.bytes.endSending();
        await client.bytes.receiveEnd();
      }
      client.bytes.destroy();
    }
  }
  await backToNormal(daemon.pid, before);
  const good = await open();
  t.ok((await good.readOk(100, 600)).equals(payload), 'the whole one was written');
  await good.disconnect();
  await daemon.stop();
});

void t.test('one side only: what was asked before is answered', async (t) => {
  const { daemon, address, open } = await serveFile(t, MIB, ['--simulate-faults', 'delay=50']);
  const before = await idleDescriptors(daemon.pid, address);
  const client = await open();
  const writes = Array.from({ length: 100 }, (_, index) =>
    client.write(index * 4096, Buffer.alloc(4096, index)),
  );
  client.bytes.endSending();
  for (const { error } of await Promise.all(writes)) t.equal(error, Errno.OK);
  await client.bytes.receiveEnd();
  await backToNormal(daemon.pid, before);
  await daemon.stop();
});

/** A client that sends 1,000 writes of 4 KiB, says so, and stays. */
const BUSY = `
  const { connect } = require('node:net');
  const socket = connect(process.argv[1]);
  socket.on('error', () => process.exit(1));
  const hello = Buffer.from(process.argv[2], 'hex');
  const requests = [];
  for (let i = 0; i < 1000; i++) {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(0x25609513, 0);
    header.writeUInt16BE(1, 6);
    header.writeUInt32BE(i + 1, 12);
    header.writeUInt32BE(i * 4096, 20);
    header.writeUInt32BE(4096, 24);
    requests.push(header, Buffer.alloc(4096, 1 + (i % 255)));
  }
  socket.write(hello);
  socket.write(Buffer.concat(requests), () => console.log('sent'));
  setInterval(() => {}, 1000);
`;

void t.test('kill -9 with 1,000 requests in flight', async (t) => {
  const args = ['--max-client-requests', '1024', '--simulate-faults', 'delay=300'];
  const { daemon, address, file, open } = await serveFile(t, 8 * MIB, args);
  await idleDescriptors(daemon.pid, address);
  const other = await open();
  const before = countDescriptors(daemon.pid);
  const go = Buffer.concat([Buffer.from([0, 0, 0, 3]), option(Opt.GO, goData('', []))]);
  const busy = spawn(process.execPath, ['-e', BUSY, address.path, go.toString('hex')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  t.teardown(() => busy.kill('SIGKILL'));
  await new Promise((resolve) => busy.stdout.once('data', resolve));
  const mine = other.write(6 * MIB, Buffer.alloc(MIB, 0xcc));
  busy.kill('SIGKILL');
  t.equal((await mine).error, Errno.OK);
  await backToNormal(daemon.pid, before);
  t.ok((await other.readOk(6 * MIB, MIB)).equals(Buffer.alloc(MIB, 0xcc)));
  t.equal((await other.flush()).error, Errno.OK);
  const held = readFileSync(file);
  for (let i = 0; i < 1000; i++) {
    const block = held.subarray(i * 4096, (i + 1) * 4096);
    const isOld = block.equals(Buffer.alloc(4096));
    if (!isOld && !block.equals(Buffer.alloc(4096, 1 + (i % 255)))) t.fail(`block ${i} is torn`);
  }
  await other.disconnect();
  await daemon.stop();
});
