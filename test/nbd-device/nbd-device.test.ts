/**
 * Goal: the device of the kernel's gets a connection, another one whenever it has lost that, and is
 * ended when we are told to stop; servers that refuse or lie are told in words.
 * Method: a kernel of the test's own that keeps duplicates of the sockets, and the real daemon. The
 * real kernel is in test/xen/dom0/scenarios/debian.ts.
 */
import { createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { LogDetails, Logger } from '../../src/daemon/log.ts';
import { Supervisor } from '../../src/daemon/supervisor.ts';
import type { KernelNbd, NbdConnection } from '../../src/nbd-device/kernel-nbd.ts';
import { keepNbdDevice } from '../../src/nbd-device/nbd-device.ts';
import { connectServer } from '../../src/nbd-device/server-socket.ts';
import { closeFd, duplicateFd } from '../../src/sys/index.ts';
import { makeFolder, startSimulated } from '../daemon/support/simulated.ts';
import { runXenblkNbd } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';

/** A kernel that writes down what it is asked, and keeps the sockets. */
class RecordingKernel implements KernelNbd {
  readonly calls: string[] = [];
  readonly sockets: number[] = [];
  owner: string | undefined;
  #onLost: (index: number) => void = () => undefined;

  connect(index: number, connection: NbdConnection, waitSeconds: number, owner: string): void {
    this.calls.push(`connect ${index}, wait ${waitSeconds} s: ${this.#take(connection)}`);
    this.owner = owner;
  }

  reconnect(index: number, connection: NbdConnection, owner: string): void {
    this.calls.push(`reconnect ${index}: ${this.#take(connection)}`);
    if (owner !== this.owner) throw new Error('another owner');
  }

  disconnect(index: number): void {
    this.calls.push(`disconnect ${index}`);
    for (const fd of this.sockets.splice(0)) closeFd(fd);
    this.owner = undefined;
  }

  ownerOf(): string | undefined {
    return this.owner;
  }

  onLost(callback: (index: number) => void): void {
    this.#onLost = callback;
  }

  close(): void {
    this.calls.push('close');
  }

  /** The device has lost its connection. */
  lose(index: number): void {
    for (const fd of this.sockets.splice(0)) closeFd(fd);
    this.#onLost(index);
  }

  #take({ fd, sizeBytes, blockBytes, flags }: NbdConnection): string {
    this.sockets.push(duplicateFd(fd));
    return `${sizeBytes} bytes in blocks of ${blockBytes}, flags ${flags & 1}`;
  }
}

function keep(
  kernel: RecordingKernel,
  socket: string,
  exportName = '',
): { ended: Promise<void>; events: string[]; stop: () => void; isReady: () => boolean } {
  const events: string[] = [];
  const record = (event: string, _details: LogDetails, _message: string): void => {
    events.push(event);
  };
  const log: Logger = { debug: record, info: record, warn: record, error: record };
  const abort = new AbortController();
  let isReady = false;
  const ended = keepNbdDevice({
    index: 3,
    socket,
    exportName,
    waitSeconds: 60,
    kernel,
    supervisor: new Supervisor({}, () => undefined),
    log,
    signal: abort.signal,
    onReady: () => {
      isReady = true;
    },
  });
  ended.catch(() => undefined);
  return { ended, events, stop: () => abort.abort(), isReady: () => isReady };
}

const SIZE = '8388608 bytes in blocks of 512, flags 1';

void t.test('a server that comes and goes', async (t) => {
  const kernel = new RecordingKernel();
  const first = await startSimulated(t, ['--max-connections', '1']);
  const device = keep(kernel, first.socket);
  await eventually('it is ready', 30_000, () => device.isReady() || undefined);
  t.strictSame(kernel.calls, [`connect 3, wait 60 s: ${SIZE}`]);
  kernel.lose(4);
  kernel.lose(3);
  const isBack = (): true | undefined => kernel.calls.length === 2 || undefined;
  await eventually('it has another connection', 30_000, isBack);
  t.equal(kernel.calls[1], `reconnect 3: ${SIZE}`);
  await first.daemon.stop();
  kernel.lose(3);
  const waits = (): true | undefined => device.events.includes('device-waits') || undefined;
  await eventually('it says that nobody is there', 30_000, waits);
  device.stop();
  await device.ended;
  t.strictSame(kernel.calls.slice(2), ['disconnect 3', 'close']);
  const told = device.events.filter((event) => event !== 'device-waits');
  t.strictSame(told, [
    'device-connected',
    'device-lost',
    'device-back',
    'device-lost',
    'device-ended',
  ]);
});

void t.test('a device that is connected already', async (t) => {
  const { socket, daemon } = await startSimulated(t, []);
  const kernel = new RecordingKernel();
  kernel.owner = '';
  await t.rejects(keep(kernel, socket).ended, /\/dev\/nbd3 is connected already: choose another/);
  kernel.owner = `xenblk-nbd:${socket}:`;
  const device = keep(kernel, socket);
  await eventually('it is ready', 30_000, () => device.isReady() || undefined);
  t.equal(kernel.calls.at(-1), `reconnect 3: ${SIZE}`, 'one like us had it, and was killed');
  device.stop();
  await device.ended;
  t.ok(device.events.includes('device-taken-up'));
  await daemon.stop();
});

void t.test('servers that refuse', async (t) => {
  const { socket, daemon } = await startSimulated(t, []);
  const refused = keep(new RecordingKernel(), socket, 'nonesuch');
  await t.rejects(refused.ended, /the server refuses: .*\(NBD_REP_ERR_UNKNOWN\)/);
  await daemon.stop();
  const folder = makeFolder(t);
  const greeting = Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1');
  const reply = (type: number, lengthBytes: number): Buffer => {
    const header = Buffer.from('0003e889045565a9000000070000000000000000', 'hex');
    header.writeUInt32BE(type, 12);
    header.writeUInt32BE(lengthBytes, 16);
    return header;
  };
  for (const [name, text, reason] of [
    ['http', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), /no NBD server/],
    ['old', Buffer.from('NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0', 'latin1'), /no NBD server/],
    ['silent', Buffer.from(greeting), /went away/],
    ['wrong', Buffer.concat([greeting, Buffer.alloc(20, 1)]), /breaks the NBD protocol/],
    ['long', Buffer.concat([greeting, reply(3, 1 << 30)]), /breaks the NBD protocol/],
    ['bare', Buffer.concat([greeting, reply(1, 0)]), /says nothing of the export/],
    ['chatty', Buffer.concat([greeting, reply(1, 0), greeting]), /nothing of the export/],
    ['tls', Buffer.concat([greeting, reply(0x80000005, 0)]), /refuses: NBD_REP_ERR_TLS_REQD/],
  ] as const) {
    const path = join(folder, name);
    await lie(t, path, text);
    const signal = new AbortController().signal;
    await t.rejects(connectServer(path, '', signal), { message: reason }, name);
  }
});

/** A server that says one thing and hangs up a little later. */
async function lie(t: Test, path: string, text: Buffer): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write(text);
    socket.once('data', () => socket.end());
  });
  t.teardown(() => server.close());
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

void t.test('the command line', async (t) => {
  const wrong = await runXenblkNbd(['nbd-device', '/dev/sda', '--unix', '/run/x']);
  t.match(wrong, { status: 2, stderr: /\/dev\/sda is no NBD device of the kernel/ });
  t.match(await runXenblkNbd(['nbd-device', '/dev/nbd0']), { status: 2, stderr: /--unix/ });
  t.match(await runXenblkNbd(['take-over']), { status: 2, stderr: /missing required argument/ });
});
