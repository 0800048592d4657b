// Goal: the device transport writes one message per write, refuses what the kernel would, survives
// refused writes, reads without ever blocking, and lets the process exit. Method: a pty or a pair
// of FIFOs cannot be both ends of one descriptor, so the "device" is a FIFO opened for reading
// and writing; for refusals it is a descriptor that cannot be written.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  connectXenStore,
  DeviceTransport,
  openDevice,
  PollingWaiter,
  type ReadableWaiter,
  type TransportHandlers,
  XENBUS_PAYLOAD_MAX,
  XenStoreClient,
  XenStoreConnectError,
} from 'xenstore-client';
import { encodePacket, encodeReply, XsType } from 'xenstore-client/wire';
import { settle } from './scripted-transport.ts';

const folder = mkdtempSync(join(tmpdir(), 'xenbus-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
let lastFifo = 0;

/** A FIFO open at both ends: what is written can be read again. */
function openFifo(): { path: string; fd: number } {
  lastFifo += 1;
  const path = join(folder, `fifo${lastFifo}`);
  spawnSync('mkfifo', [path]);
  return { path, fd: openSync(path, constants.O_RDWR | constants.O_NONBLOCK) };
}

/** A waiter that the test turns. */
class ManualWaiter implements ReadableWaiter {
  waits = 0;
  hints = 0;
  isClosed = false;
  #onReadable: (() => void) | undefined;

  wait(_fd: number, onReadable: () => void): void {
    this.waits += 1;
    this.#onReadable = onReadable;
  }

  expectSoon(): void {
    this.hints += 1;
  }

  close(): void {
    this.isClosed = true;
    this.#onReadable = undefined;
  }

  fire(): void {
    const onReadable = this.#onReadable;
    this.#onReadable = undefined;
    onReadable?.();
  }
}

class Recorder implements TransportHandlers {
  readonly chunks: Buffer[] = [];
  readonly ends: (Error | undefined)[] = [];

  onData(chunk: Uint8Array): void {
    this.chunks.push(Buffer.from(chunk));
  }

  onClose(error?: Error): void {
    this.ends.push(error);
  }
}

void t.test('each packet is written whole, and read back through the waiter', async (t) => {
  const { fd } = openFifo();
  const waiter = new ManualWaiter();
  const transport = new DeviceTransport({ fd, waiter });
  const recorder = new Recorder();
  transport.start(recorder);
  t.equal(waiter.waits, 1);
  const packet = encodePacket({ type: 2, reqId: 1, txId: 0, payload: new Uint8Array(4080) });
  transport.send(packet);
  t.equal(waiter.hints, 1, 'the waiter knows that an answer is near');
  t.strictSame(recorder.chunks, [], 'nothing is read before the waiter says so');
  waiter.fire();
  t.strictSame(Buffer.concat(recorder.chunks), Buffer.from(packet));
  t.equal(waiter.waits, 2, 'armed again');
  waiter.fire();
  t.equal(recorder.chunks.length, 1, 'a fire without data does no harm');
  t.equal(waiter.waits, 3);
  transport.close();
  transport.close();
  t.strictSame(recorder.ends, [], 'not from within close()');
  await settle();
  t.strictSame(recorder.ends, [undefined], 'once');
  t.ok(waiter.isClosed);
  t.throws(() => readSync(fd, new Uint8Array(1)), { code: 'EBADF' }, 'the descriptor is closed');
  transport.send(packet);
});

/** A packet whose type and id are told apart in what a FIFO holds. */
function message(type: number, reqId: number, lengthBytes: number): Uint8Array {
  const payload = new Uint8Array(lengthBytes).fill(reqId);
  return encodePacket({ type, reqId, txId: 0, payload });
}

void t.test('a message waits for the answer to the one before it', async (t) => {
  // Linux keeps only a pointer to a message's body until it is sent: the next write would fill the
  // same buffer. Found on real Xen as ENOENT for nodes that exist.
  const { fd } = openFifo();
  const waiter = new ManualWaiter();
  const transport = new DeviceTransport({ fd, waiter });
  const recorder = new Recorder();
  transport.start(recorder);
  const [first, second, third] = [1, 2, 3].map((id) => Buffer.from(message(XsType.READ, id, id)));
  for (const packet of [first, second, third]) transport.send(packet ?? new Uint8Array(0));
  const written = Buffer.alloc(1000);
  const lengthBytes = readSync(fd, written);
  t.strictSame(written.subarray(0, lengthBytes), first, 'only the first was written');
  // The FIFO gives back what is written to it: each further message is an answer, too.
  const answer = Buffer.from(message(XsType.READ, 1, 9));
  writeSync(fd, answer);
  waiter.fire();
  t.strictSame(recorder.chunks, [answer, second, third]);
  transport.close();
});

void t.test('a watch event is no answer', (t) => {
  const { fd } = openFifo();
  const waiter = new ManualWaiter();
  const transport = new DeviceTransport({ fd, waiter });
  const recorder = new Recorder();
  transport.start(recorder);
  transport.send(message(XsType.WATCH_EVENT, 1, 4));
  const next = message(XsType.READ, 2, 5);
  transport.send(next);
  waiter.fire();
  t.equal(recorder.chunks.length, 1);
  waiter.fire();
  t.equal(recorder.chunks.length, 1, 'the second message still waits');
  writeSync(fd, message(XsType.READ, 1, 3));
  waiter.fire();
  waiter.fire();
  t.strictSame(recorder.chunks.at(-1), Buffer.from(next), 'it goes after the answer');
  transport.close();
  t.end();
});

void t.test('answers that come in pieces or together', (t) => {
  const { fd } = openFifo();
  const waiter = new ManualWaiter();
  const transport = new DeviceTransport({ fd, waiter });
  const recorder = new Recorder();
  transport.start(recorder);
  const event = message(XsType.WATCH_EVENT, 0, 6);
  const answer = message(XsType.READ, 1, 7);
  const stream = Buffer.concat([event, answer, event]);
  for (const byte of stream) {
    writeSync(fd, new Uint8Array([byte]));
    waiter.fire();
  }
  t.strictSame(
    recorder.chunks,
    [event, answer, event].map((each) => Buffer.from(each)),
  );
  recorder.chunks.length = 0;
  writeSync(fd, stream);
  waiter.fire();
  t.strictSame(
    recorder.chunks,
    [event, answer, event].map((each) => Buffer.from(each)),
  );
  transport.close();
  t.end();
});

void t.test('a message that was queued and then refused is answered with an error', (t) => {
  const { fd } = openFifo();
  const waiter = new ManualWaiter();
  const transport = new DeviceTransport({ fd, waiter });
  const recorder = new Recorder();
  transport.start(recorder);
  transport.send(message(XsType.READ, 1, 4));
  transport.send(message(XsType.READ, 0x0706_0504, 5));
  // From now on the descriptor is /dev/full: each write fails with ENOSPC, a name of XenStore's,
  // and what is read are zeros, which make empty packets of the type CONTROL: answers.
  closeSync(fd);
  const others: number[] = [];
  for (;;) {
    const next = openSync('/dev/full', constants.O_RDWR | constants.O_NONBLOCK);
    if (next === fd) break;
    others.push(next);
  }
  for (const other of others) closeSync(other);
  waiter.fire();
  const errors = recorder.chunks.filter((chunk) => chunk.readUInt32LE(0) === XsType.ERROR);
  t.equal(errors.length, 1);
  t.equal(
    errors[0]?.toString('hex'),
    `10000000 04050607 00000000 07000000 ${Buffer.from('ENOSPC\0').toString('hex')}`.replaceAll(
      ' ',
      '',
    ),
  );
  transport.close();
  t.end();
});

void t.test('a header that breaks the protocol ends the connection', async (t) => {
  const { fd } = openFifo();
  const waiter = new ManualWaiter();
  const transport = new DeviceTransport({ fd, waiter });
  const recorder = new Recorder();
  transport.start(recorder);
  const breach = new Uint8Array(16);
  new DataView(breach.buffer).setUint32(12, 5000, true);
  writeSync(fd, breach);
  waiter.fire();
  await settle();
  t.match(recorder.ends, [{ code: 'PROTOCOL', message: /5000/ }]);
});

void t.test('the limit of the device is 4080 bytes of payload', (t) => {
  const { fd } = openFifo();
  const transport = new DeviceTransport({ fd, waiter: new ManualWaiter() });
  transport.start(new Recorder());
  t.equal(XENBUS_PAYLOAD_MAX, 4080);
  const packet = (lengthBytes: number): Uint8Array =>
    encodePacket({ type: 11, reqId: 1, txId: 0, payload: new Uint8Array(lengthBytes) });
  transport.send(packet(4080));
  t.throws(() => transport.send(packet(4081)), { code: 'E2BIG', message: /4081 .* 4080/ });
  transport.close();
  t.end();
});

void t.test('a value that fits the protocol but not the device is a clear error', async (t) => {
  const { fd } = openFifo();
  const client = new XenStoreClient(new DeviceTransport({ fd, waiter: new ManualWaiter() }));
  await t.rejects(client.write('ab', 'x'.repeat(4078)), {
    code: 'E2BIG',
    path: 'ab',
    message: /WRITE of "ab" was not sent: its 4081 bytes are more than the 4080/,
  });
  await client.close();
});

void t.test('a refused write is one failed request; an odd one ends the connection', async (t) => {
  // /dev/full refuses each write with ENOSPC, which is a name of XenStore.
  const full = openSync('/dev/full', constants.O_RDWR | constants.O_NONBLOCK);
  const client = new XenStoreClient(new DeviceTransport({ fd: full, waiter: new ManualWaiter() }));
  await t.rejects(client.read('a'), {
    code: 'ENOSPC',
    path: 'a',
    message: /was not sent: the kernel answered ENOSPC: this domain's quota/,
  });
  await t.rejects(client.read('a'), { code: 'ENOSPC' }, 'the connection lives on');
  await client.close();
  // A descriptor for reading only gives EBADF.
  const readOnly = openSync('/dev/zero', constants.O_RDONLY);
  const broken = new XenStoreClient(
    new DeviceTransport({ fd: readOnly, waiter: new ManualWaiter() }),
  );
  await t.rejects(broken.read('a'), { code: 'CLOSED', message: /EBADF/ });
  t.match(await broken.closed, { code: 'CLOSED', cause: { code: 'EBADF' } });
});

void t.test('the end of the device ends the connection', async (t) => {
  const fd = openSync('/dev/null', constants.O_RDWR | constants.O_NONBLOCK);
  const waiter = new ManualWaiter();
  const client = new XenStoreClient(new DeviceTransport({ fd, waiter }));
  const pending = client.read('a');
  waiter.fire();
  await t.rejects(pending, { code: 'CLOSED', message: /was at its end/ });
});

void t.test('a listener may close the client while the device is read', async (t) => {
  const { fd, path } = openFifo();
  const waiter = new ManualWaiter();
  const client = new XenStoreClient(new DeviceTransport({ fd, waiter }));
  const far = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const watching = client.watch('a', () => void client.close());
  readSync(far, new Uint8Array(4096));
  writeSync(far, encodeReply({ type: XsType.WATCH }, 1));
  writeSync(far, encodePacket({ type: 15, reqId: 7, txId: 7, payload: Buffer.from('a\x001\0') }));
  waiter.fire();
  t.equal(await client.closed, undefined);
  await watching;
  t.ok(waiter.isClosed);
  closeSync(far);
});

void t.test('the default waiter finds data by itself', async (t) => {
  const { fd, path } = openFifo();
  const far = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const client = new XenStoreClient(new DeviceTransport({ fd }));
  const reading = client.read('a');
  // This side must take the request before the client reads its own words back.
  readSync(far, new Uint8Array(4096));
  writeSync(far, encodeReply({ type: XsType.READ, value: Buffer.from('v') }, 1));
  t.equal(await reading, 'v');
  const waiter = new PollingWaiter({ busyIntervalMs: 1, idleIntervalMs: 2 });
  let fires = 0;
  waiter.wait(fd, () => {
    fires += 1;
  });
  waiter.expectSoon();
  await new Promise((resolve) => setTimeout(resolve, 15));
  t.equal(fires, 1, 'once for each wait');
  waiter.wait(fd, () => t.fail('must not be called after close'));
  waiter.close();
  waiter.expectSoon();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await client.close();
  closeSync(far);
});

void t.test('a silent device does not keep the process from exiting', (t) => {
  const { path, fd } = openFifo();
  const program = `
    const { connectXenStore } = await import('xenstore-client');
    const client = await connectXenStore({ path: ${JSON.stringify(path)} });
    await client.watchEvents('a').catch(() => undefined);
  `;
  const exitSoon = `setTimeout(() => process.exit(7), 50);`;
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', exitSoon + program], {
    timeout: 60_000,
  });
  t.equal(run.status, 7, String(run.stderr));
  closeSync(fd);
  t.end();
});

void t.test('no device: the error names the place and what to do', async (t) => {
  const missing = join(folder, 'missing');
  t.throws(() => openDevice({ path: missing }), XenStoreConnectError);
  t.throws(() => openDevice({ path: missing }), {
    code: 'CONNECT',
    systemCode: 'ENOENT',
    message: /missing: there is no such device.*Is this a Xen guest\?/,
  });
  const directory = connectXenStore({ path: folder });
  await t.rejects(directory, { code: 'CONNECT', systemCode: 'EISDIR' });
});
