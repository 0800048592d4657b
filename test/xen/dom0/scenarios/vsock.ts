// A vbd served over vsock, from this machine to itself. The client of the tests speaks to Unix
// sockets, so a relay takes it on.
import { ok, strictEqual } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { SocketStream } from '../../../../src/daemon/socket-stream.ts';
import { connectVsock, VMADDR_CID_LOCAL } from '../../../../src/sys/index.ts';
import { NbdClient } from '../../../support/nbd-client.ts';
import { Errno } from '../../../support/nbd-wire.ts';
import { SeededRandom } from '../../../support/random.ts';
import { run } from '../commands.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { serveVbd } from '../served-vbd.ts';
import { createVbd } from '../vbd-fixture.ts';

const PORT = 10809;
const RELAY = '/run/vsock-relay.sock';
const SIZE_BYTES = 4 << 20;

export const vsock: Scenario = {
  name: 'a vbd served over vsock holds what its clients write',
  async run(lab: Lab): Promise<void> {
    await run('modprobe', 'vsock_loopback');
    const vbd = await createVbd(lab, { sizeBytes: SIZE_BYTES });
    const served = await serveVbd(lab, vbd, '--listen', `vsock:${PORT}`);
    const relay = net.createServer({ allowHalfOpen: true }, (socket) => {
      const stream = new SocketStream(connectVsock({ cid: VMADDR_CID_LOCAL, port: PORT }));
      socket.on('error', () => stream.destroy());
      stream.on('error', () => socket.destroy());
      socket.pipe(stream).pipe(socket);
    });
    await new Promise<void>((resolve) => relay.listen({ path: RELAY }, resolve));
    lab.cleanUp(() => {
      relay.close();
    });
    const clients = await Promise.all(
      [1, 2, 3].map(async () => (await NbdClient.open({ path: RELAY })).client),
    );
    lab.step('three clients came over vsock');
    const random = new SeededRandom(20);
    const model = random.bytes(SIZE_BYTES);
    const writes = [];
    for (let at = 0, turn = 0; at < SIZE_BYTES; turn++) {
      const length = Math.min(SIZE_BYTES - at, 1 + random.below(100_000));
      const client = clients[turn % clients.length] as NbdClient;
      writes.push(client.write(at, model.subarray(at, at + length)));
      at += length;
    }
    for (const { error } of await Promise.all(writes)) strictEqual(error, Errno.OK);
    const [one, ...others] = clients as [NbdClient, ...NbdClient[]];
    strictEqual((await one.flush()).error, Errno.OK);
    ok(readFileSync(vbd.file).equals(model), 'the backing file differs');
    for (const client of clients) ok((await client.readOk(0, SIZE_BYTES)).equals(model));
    lab.step('4 MiB written and read over three connections: the file agrees');
    for (const client of others) await client.disconnect();
    await served.waitForLog(/\(vsock:1:\d+\) came to/, 60_000);
    // One that stays is told of the end by the server.
    const ended = one.bytes.receiveEnd(120_000);
    await served.stop();
    await ended;
    one.bytes.destroy();
  },
};
