// Goal: the clients people use work. Method: each real client against servers in this process, over
// Unix sockets, TCP, certificates and pre-shared keys; what is not installed is skipped.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FileBackend, NbdServer, parsePskFile, SparseMemoryBackend } from 'nbd-server-ts';
import t, { type Test } from 'tap';
import { makeCertificates } from './support/certificates.ts';
import { missing, run } from './support/program.ts';
import { Random } from './support/random.ts';
import { temporaryDirectory } from './support/test-server.ts';

const MIB = 1024 * 1024;
const SIZE = 8 * MIB;

interface Served {
  readonly uri: string;
  readonly directory: string;
  /** The file the server serves. */
  readonly file: string;
}

/** Serves a file of random bytes with a hole of zeroes in its middle. */
async function serveFile(t: Test): Promise<Served> {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'disk');
  const bytes = Buffer.from(new Random(1).bytes(SIZE));
  bytes.fill(0, 3 * MIB, 4 * MIB);
  writeFileSync(file, bytes);
  const backend = await FileBackend.open(file);
  const server = new NbdServer({
    exports: [{ name: 'disk', description: 'a file', backend }],
  });
  const path = join(directory, 's');
  const { uri } = (await server.listen({ path })) as { uri: string };
  t.teardown(async () => {
    await server.close();
    await backend.close();
  });
  return { uri, directory, file };
}

async function succeed(t: Test, program: string, args: string[], input?: string): Promise<string> {
  const { code, output } = await run(program, args, input === undefined ? {} : { input });
  t.equal(code, 0, `${program} ${args.join(' ')}`);
  if (code !== 0) t.comment(output);
  return output;
}

void t.test('nbdinfo', { skip: missing('nbdinfo') }, async (t) => {
  const { uri } = await serveFile(t);
  const info = JSON.parse(await succeed(t, 'nbdinfo', ['--json', uri]));
  t.match(info, {
    protocol: 'newstyle-fixed',
    exports: [
      {
        'export-name': 'disk',
        description: 'a file',
        'export-size': SIZE,
        is_read_only: false,
        can_df: true,
        can_fast_zero: true,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_zero: true,
        can_trim: false,
        block_size_minimum: 1,
        block_size_preferred: 4096,
        block_size_maximum: 32 * MIB,
        contexts: ['base:allocation'],
      },
    ],
  });
  t.match(await succeed(t, 'nbdinfo', ['--list', uri]), /export="disk"/);
  t.match(await succeed(t, 'nbdinfo', ['--map', uri]), new RegExp(`0\\s+${SIZE}\\s+0\\s+data`));
  const { code, output } = await run('nbdinfo', [uri.replace('///', '///nothing')]);
  t.not(code, 0);
  t.match(output, /There is no export "nothing"|No such file/i);
});

void t.test('nbdcopy', { skip: missing('nbdcopy') }, async (t) => {
  const { uri, directory, file } = await serveFile(t);
  const copy = join(directory, 'copy');
  await succeed(t, 'nbdcopy', ['--connections=4', '--requests=16', uri, copy]);
  t.ok(readFileSync(copy).equals(readFileSync(file)), 'out');
  writeFileSync(copy, new Random(2).bytes(SIZE));
  await succeed(t, 'nbdcopy', ['--connections=4', '--flush', copy, uri]);
  t.ok(readFileSync(copy).equals(readFileSync(file)), 'in');
});

void t.test('qemu-img and qemu-io', { skip: missing('qemu-img', 'qemu-io') }, async (t) => {
  const { uri, directory, file } = await serveFile(t);
  const copy = join(directory, 'copy');
  await succeed(t, 'qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, copy]);
  await succeed(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, copy]);
  t.ok(readFileSync(copy).equals(readFileSync(file)));
  const io = [
    'write -P 0xaa 4k 64k',
    'read -P 0xaa 4k 64k',
    'write -f -P 0xbb 1M 1M',
    'write -z 1025k 1k',
    'read -P 0 1025k 1k',
    'read -P 0xbb 1026k 100k',
    'write -P 0xcc 5 7',
    'read -P 0xcc 5 7',
    'flush',
  ];
  const output = await succeed(t, 'qemu-io', ['-f', 'raw', ...io.flatMap((c) => ['-c', c]), uri]);
  t.notMatch(output, /fail|error/i);
  const bytes = readFileSync(file);
  t.ok(bytes.subarray(5, 12).equals(Buffer.alloc(7, 0xcc)), 'it is in the file');
  t.match(await succeed(t, 'qemu-img', ['map', '--output=json', '-f', 'raw', uri]), /"data": true/);
});

void t.test('holes', { skip: missing('qemu-img', 'qemu-io', 'nbdinfo') }, async (t) => {
  const directory = temporaryDirectory(t);
  const backend = new SparseMemoryBackend(2 ** 40);
  const server = new NbdServer({ exports: [{ name: '', backend }] });
  t.teardown(() => server.close());
  const { uri } = (await server.listen({ path: join(directory, 's') })) as { uri: string };
  const writes = [
    '-c',
    'write -P 1 512G 64k',
    '-c',
    'write -P 1 700G 128k',
    '-c',
    'discard 700G 64k',
  ];
  await succeed(t, 'qemu-io', ['-f', 'raw', '-d', 'unmap', ...writes, uri]);
  t.equal(backend.allocatedBytes, 2 * 65536);
  const map = await succeed(t, 'nbdinfo', ['--map', '--totals', uri]);
  t.match(map, /131072\s+0\.0%\s+0\s+data/);
});

void t.test('fio', { skip: missing('fio') }, async (t) => {
  const { uri } = await serveFile(t);
  const output = await succeed(t, 'fio', [
    '--name=verify',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randrw',
    '--bsrange=512-256k',
    '--iodepth=16',
    '--numjobs=4',
    '--thread',
    '--group_reporting',
    `--size=${SIZE / 4}`,
    `--offset_increment=${SIZE / 4}`,
    '--verify=crc32c',
    // It would leave a file for each job in the present folder.
    '--verify_state_save=0',
    '--fsync=32',
  ]);
  t.match(output, /err= 0/);
});

void t.test('nbdkit as a client', { skip: missing('nbdkit', 'nbdinfo') }, async (t) => {
  const { uri, directory } = await serveFile(t);
  const command = `nbdcopy "$uri" ${join(directory, 'copy')} && nbdinfo --size "$uri"`;
  const output = await succeed(t, 'nbdkit', ['-U', '-', 'nbd', `uri=${uri}`, '--run', command]);
  t.match(output, new RegExp(`^${SIZE}$`, 'm'));
  t.ok(readFileSync(join(directory, 'copy')).equals(readFileSync(join(directory, 'disk'))));
});

const PYTHON = '/usr/bin/python3';
const hasLibnbd = existsSync(PYTHON) && (await run(PYTHON, ['-c', 'import nbd'])).code === 0;

void t.test(
  'libnbd with its own checks off',
  { skip: !hasLibnbd && 'python3-libnbd not installed' },
  async (t) => {
    const { uri } = await serveFile(t);
    const script = `
import nbd, errno
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context('base:allocation')
h.connect_uri('${uri}')
size = h.get_size()
def refused(code, call):
    try:
        call()
    except nbd.Error as e:
        assert e.errnum == code, (e.errnum, code, str(e))
    else:
        raise Exception('it was not refused')
refused(errno.EINVAL, lambda: h.pread(2, size - 1))
refused(errno.ENOSPC, lambda: h.pwrite(b'ab', size - 1))
refused(errno.ENOSPC, lambda: h.zero(2, size - 1))
refused(errno.EINVAL, lambda: h.trim(512, 0))
refused(errno.EINVAL, lambda: h.cache(512, 0))
refused(errno.EINVAL, lambda: h.pwrite(b'ab', 0, nbd.CMD_FLAG_NO_HOLE))
refused(errno.EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_REQ_ONE))
refused(errno.ENOTSUP, lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))
assert len(h.pread(0, 0)) == 0
h.pwrite(b'x' * 1000, 3, nbd.CMD_FLAG_FUA)
assert h.pread(1000, 3, nbd.CMD_FLAG_DF) == b'x' * 1000
h.zero(1000, 3, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
assert h.pread(1000, 3) == b'\\0' * 1000
found = []
def collect(name, offset, extents, err):
    found.append((name, offset, list(extents)))
h.block_status(size, 0, collect, nbd.CMD_FLAG_REQ_ONE)
assert found == [('base:allocation', 0, [size, 0])], found
h.flush()
h.shutdown()
print('all good')
`;
    t.match(await succeed(t, PYTHON, ['-'], script), /all good/);
  },
);

const pki = makeCertificates(temporaryDirectory(t));
const tlsSkip = missing('nbdinfo', 'nbdcopy') || (pki === undefined && 'openssl not installed');

void t.test('certificates and pre-shared keys', { skip: tlsSkip }, async (t) => {
  if (pki === undefined) return;
  const directory = temporaryDirectory(t);
  const pskFile = join(directory, 'psk');
  const pskText = 'alice:00112233445566778899aabbccddeeff\n';
  writeFileSync(pskFile, pskText);
  const backend = new SparseMemoryBackend(4 * MIB);
  const exports = [{ name: '', backend }];
  const { serverCert: cert, serverKey: key, ca } = pki;
  const x509 = new NbdServer({ exports, tls: { mode: 'require', cert, key, ca } });
  const psk = new NbdServer({ exports, tls: { mode: 'require', psk: parsePskFile(pskText) } });
  t.teardown(() => x509.close());
  t.teardown(() => psk.close());
  const tcp = (await x509.listen({ port: 0 })) as { port: number };
  await psk.listen({ path: join(directory, 's') });
  const source = join(directory, 'source');
  writeFileSync(source, new Random(3).bytes(4 * MIB));
  const x509Uri = `nbds://localhost:${tcp.port}/?tls-certificates=${pki.directory}`;
  const socket = join(directory, 's');
  const pskUri = `nbds+unix://alice@/?socket=${socket}&tls-psk-file=${pskFile}`;
  for (const uri of [x509Uri, pskUri]) {
    t.match(await succeed(t, 'nbdinfo', [uri]), /newstyle-fixed with TLS/);
    await succeed(t, 'nbdcopy', ['--connections=4', source, uri]);
    const copy = join(directory, 'copy');
    await succeed(t, 'nbdcopy', [uri, copy]);
    t.ok(readFileSync(copy).equals(readFileSync(source)));
    backend.trim(0, 4 * MIB);
  }
  const stranger = x509Uri.replace(pki.directory, pki.strangerDirectory);
  t.not((await run('nbdinfo', [stranger])).code, 0, 'a stranger is refused');
  t.not((await run('nbdinfo', [pskUri.replace('alice', 'bob')])).code, 0, 'so is an unknown user');
  if (missing('qemu-img') !== false) return;
  const credentials = `tls-creds-x509,id=tls0,endpoint=client,dir=${pki.directory}`;
  const image = `driver=nbd,host=localhost,port=${tcp.port},tls-creds=tls0`;
  await succeed(t, 'qemu-img', ['info', '--object', credentials, '--image-opts', image]);
});
