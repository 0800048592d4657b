// Goal: `--listen vsock:PORT` serves where the kernel has vsock, and says what is wrong elsewhere.
// Method: the real kernel. A client needs the kernel's vsock_loopback, which few have loaded; where
// it is missing, what comes behind accepting is left to socket-stream.test.ts and to test/xen.
import net from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { SocketStream } from '../../src/daemon/socket-stream.ts';
import {
  closeFd,
  connectVsock,
  Errno,
  errno,
  libc,
  listenVsock,
  VMADDR_ANY,
  VMADDR_CID_LOCAL,
  vsockNameOf,
} from '../../src/sys/index.ts';
import { Daemon, runXenblkNbd } from '../support/daemon.ts';
import { NbdClient } from '../support/nbd-client.ts';
import { Errno as NbdErrno } from '../support/nbd-wire.ts';
import { makeFolder } from './support/simulated.ts';

const AF_VSOCK = 40;
const SOCK_STREAM = 1;

function whyNoVsock(): string | false {
  const fd = libc.socket(AF_VSOCK, SOCK_STREAM, 0);
  if (fd < 0) return errno() === Errno.EAFNOSUPPORT ? 'this kernel has no vsock' : 'no socket';
  closeFd(fd);
  return false;
}

/** Whether a client in this machine reaches a server in it. It says so at once, or never. */
function whyNoLoopback(): string | false {
  try {
    const listener = listenVsock({ cid: VMADDR_CID_LOCAL, port: VMADDR_ANY }, 1);
    closeFd(listener);
    return false;
  } catch {
    return 'this kernel has not loaded vsock_loopback';
  }
}

const noVsock = whyNoVsock();

void t.test('without vsock it is refused', { skip: !noVsock && 'there is one' }, async (t) => {
  const result = await runXenblkNbd(['serve', '--simulate', '1M', '--listen', 'vsock:1234']);
  t.equal(result.status, 1);
  t.match(result.stderr, /vsock:1234: this kernel has no vsock; use TCP or a Unix socket\n$/);
});

void t.test('listening', { skip: noVsock }, async (t) => {
  const daemon = await Daemon.start(['--simulate', '1M', '--listen', 'vsock:0']);
  t.teardown(() => daemon.kill('SIGKILL'));
  const [, uri, port] = /^ready: (nbd\+vsock:\/\/\d+:(\d+)\/xvda)$/m.exec(daemon.output) ?? [];
  t.ok(uri, daemon.output);
  const taken = await runXenblkNbd(['serve', '--simulate', '1M', '--listen', `vsock:${port}`]);
  t.equal(taken.status, 1);
  t.match(taken.stderr, new RegExp(`vsock:${port} is in use by another program`));
  const foreign = await runXenblkNbd(['serve', '--simulate', '1M', '--listen', 'vsock:77777:4000']);
  t.equal(foreign.status, 1);
  t.match(foreign.stderr, /does not have the CID of vsock:77777:4000: leave it out/);
  await daemon.stop();
  closeFd(listenVsock({ cid: VMADDR_ANY, port: Number(port) }, 1));
  t.pass('the port is free again');
});

void t.test('serving', { skip: noVsock || whyNoLoopback() }, async (t) => {
  const daemon = await Daemon.start(['--simulate', '1M', '--listen', 'vsock:0']);
  t.teardown(() => daemon.kill('SIGKILL'));
  const port = Number(/vsock:\/\/\d+:(\d+)\//.exec(daemon.output)?.[1]);
  // The client of the tests speaks to Unix sockets: a relay takes it on.
  const path = join(makeFolder(t), 'relay.sock');
  const relay = net.createServer((socket) => {
    const stream = new SocketStream(connectVsock({ cid: VMADDR_CID_LOCAL, port }));
    t.equal(vsockNameOf(stream.fd).cid, VMADDR_CID_LOCAL);
    socket.pipe(stream).pipe(socket);
  });
  await new Promise<void>((resolve) => relay.listen({ path }, resolve));
  t.teardown(() => relay.close());
  const { client } = await NbdClient.open({ path });
  const bytes = Buffer.alloc(300_000, 'over vsock ');
  t.equal((await client.write(12_345, bytes)).error, NbdErrno.OK);
  t.ok((await client.readOk(12_345, bytes.length)).equals(bytes));
  await client.disconnect();
  await daemon.stop();
});
