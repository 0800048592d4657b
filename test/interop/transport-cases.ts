// Every client over every transport. The cases of one client alone go deeper; here each does what
// it is mostly used for, and the bytes are compared with the file behind the server.
import assert from 'node:assert/strict';
import { assertSameFiles, createSparseImage } from '../support/disk-image.ts';
import { mustRun, runProgram, words } from '../support/program.ts';
import type { CaseContext, InteropCase } from './runner.ts';
import { type Reached, TRANSPORTS, type Transport } from './transports.ts';

const SIZE_BYTES = 24 * 1024 * 1024;

interface ClientCase {
  readonly what: string;
  readonly needs: readonly string[];
  /** `served` is the file behind the server. */
  run(context: CaseContext, reached: Reached, served: string, transport: Transport): Promise<void>;
}

function isSecure(transportName: string): boolean {
  return transportName === 'x509' || transportName === 'PSK';
}

/** Copies a file in and out by a program, and compares. */
async function roundTrip(
  context: CaseContext,
  served: string,
  copy: (from: string | undefined, to: string | undefined) => Promise<unknown>,
): Promise<void> {
  const source = context.image(SIZE_BYTES, 'source.raw');
  await copy(source, undefined);
  assertSameFiles(served, source, 'into the export');
  const target = context.path('copy.raw');
  await copy(undefined, target);
  assertSameFiles(target, source, 'out of the export');
}

const FIO_ARGS = words(
  '--name=verify --ioengine=nbd --thread --group_reporting --numjobs=4 --size=6M ' +
    '--offset_increment=6M --rw=randwrite --bsrange=4k-256k --iodepth=8 --verify=crc32c ' +
    '--verify_fatal=1 --verify_dump=0',
);

const CLIENTS: readonly ClientCase[] = [
  {
    what: 'nbdinfo',
    needs: ['nbdinfo'],
    async run(_context, { uri }, _served, { name }) {
      const { stdout } = await mustRun('nbdinfo', [uri]);
      assert.match(stdout, /export-size: 25165824/);
      assert.match(
        stdout,
        isSecure(name) ? /newstyle-fixed with TLS/ : /newstyle-fixed without TLS/,
      );
    },
  },
  {
    what: 'nbdcopy --connections=4',
    needs: ['nbdcopy'],
    run: (context, { uri }, served) =>
      roundTrip(context, served, (from, to) =>
        mustRun('nbdcopy', ['--connections=4', '--flush', from ?? uri, to ?? uri]),
      ),
  },
  {
    what: 'nbdsh with strict mode off',
    needs: ['nbdsh'],
    async run(_context, { uri }) {
      const script = [
        'import errno',
        'h.set_strict_mode(0)',
        // Certificates and keys are files that the URI names.
        'h.set_uri_allow_local_file(True)',
        `h.connect_uri("${uri}")`,
        `size = ${SIZE_BYTES}`,
        'def fails(code, call, *args):',
        '    try:',
        '        call(*args)',
        '    except nbd.Error as error:',
        '        assert error.errnum == code, error',
        '        return',
        '    raise AssertionError(args)',
        'fails(errno.EINVAL, h.pread, 512, size)',
        'fails(errno.ENOSPC, h.pwrite, b"x" * 70000, size - 1)',
        'h.pwrite(b"A" * 70000, 511)',
        'assert h.pread(70002, 510) == b"\\0" + b"A" * 70000 + b"\\0"',
        'h.zero(60000, 1000)',
        'h.flush()',
        'assert h.pread(60000, 1000) == bytes(60000)',
      ].join('\n');
      // Debian's nbdsh takes the first python3 of PATH, but its module belongs to Debian's own.
      const env = { PATH: `/usr/bin:${process.env['PATH'] ?? ''}` };
      await mustRun('nbdsh', ['-c', script], { env });
    },
  },
  {
    what: 'qemu-img convert, compare and map',
    needs: ['qemu-img'],
    async run(context, { qemuObjects, qemuImage }, served) {
      const asImage = (file: string): string => `driver=raw,file.filename=${file}`;
      const options = [...qemuObjects, '--image-opts'];
      await roundTrip(context, served, (from, to) =>
        to === undefined
          ? mustRun('qemu-img', [
              'convert',
              ...options,
              '-n',
              '--target-image-opts',
              asImage(from ?? ''),
              qemuImage,
            ])
          : mustRun('qemu-img', ['convert', ...options, '-O', 'raw', qemuImage, to]),
      );
      const compare = ['compare', ...options, qemuImage];
      const source = asImage(context.path('source.raw'));
      assert.match((await mustRun('qemu-img', [...compare, source])).stdout, /are identical/);
      createSparseImage(context.path('other.raw'), SIZE_BYTES);
      const other = asImage(context.path('other.raw'));
      assert.equal((await runProgram('qemu-img', [...compare, other])).status, 1, 'different');
      const { stdout } = await mustRun('qemu-img', ['map', ...options, '--output=json', qemuImage]);
      const extents = JSON.parse(stdout) as { length: number; data: boolean }[];
      const dataBytes = extents.filter(({ data }) => data).map(({ length }) => length);
      assert.equal(
        dataBytes.reduce((sum, bytes) => sum + bytes, 0),
        SIZE_BYTES,
      );
    },
  },
  {
    what: 'qemu-io',
    needs: ['qemu-io'],
    async run(_context, { qemuObjects, qemuImage }) {
      const commands = [
        'write -P 0x41 511 70001',
        'read -P 0x41 511 70001',
        'read -P 0 0 511',
        'write -z 4096 8192',
        'read -P 0 4096 8192',
        'flush',
        'discard 65536 65536',
      ].flatMap((command) => ['-c', command]);
      const args = [...qemuObjects, '--image-opts', ...commands, qemuImage];
      const { stdout } = await mustRun('qemu-io', args);
      assert.doesNotMatch(stdout, /fail|error/i);
    },
  },
  {
    what: 'fio --verify',
    needs: ['fio', 'nbdkit'],
    async run(context, { uri, nbdkitArgs }, _served, { name }) {
      if (!isSecure(name)) {
        await mustRun('fio', [...FIO_ARGS, `--uri=${uri}`], { cwd: context.folder });
        return;
      }
      // fio does not allow libnbd the files that a URI names, so nbdkit speaks TLS for it.
      const command = `fio ${FIO_ARGS.join(' ')} --uri="$uri"`;
      const args = ['-U', '-', 'nbd', ...nbdkitArgs, '--run', command];
      await mustRun('nbdkit', args, { cwd: context.folder });
    },
  },
  {
    what: "nbdkit's nbd plugin",
    needs: ['nbdkit', 'nbdcopy'],
    run: (context, { nbdkitArgs }, served) =>
      roundTrip(context, served, (from, to) => {
        const [source, target] = [from ?? '$uri', to ?? '$uri'];
        const command = `nbdcopy --flush "${source}" "${target}"`;
        return mustRun('nbdkit', ['-U', '-', 'nbd', ...nbdkitArgs, '--run', command]);
      }),
  },
];

export const transportCases: readonly InteropCase[] = TRANSPORTS.flatMap((transport) =>
  CLIENTS.map((client) => ({
    name: `over ${transport.name}: ${client.what}`,
    needs: transport.name === 'x509' ? [...client.needs, 'openssl'] : client.needs,
    isOurs: true as const,
    async run(context: CaseContext) {
      const served = context.path('served.raw');
      createSparseImage(served, SIZE_BYTES);
      await client.run(context, await transport.reach(context, served), served, transport);
    },
  })),
);
