// libnbd through nbdsh with its own checks switched off ("strict mode"), so that the server has to
// refuse what is wrong, with the error numbers that the protocol document names.

import { assertSameBytes, randomBytes, readFileRange } from '../support/disk-image.ts';
import { mustRun } from '../support/program.ts';
import type { CaseContext, InteropCase } from './runner.ts';

const SIZE_BYTES = 4 * 1024 * 1024;

/** What each script may use. `fails` demands one error number and nothing else. */
const PRELUDE = `
import errno
size = ${SIZE_BYTES}
h.set_strict_mode(0)
def fails(code, call, *args, **named):
    try:
        call(*args, **named)
    except nbd.Error as error:
        assert error.errnum == code, \\
            "%s instead of %s from %s%r" % (error.errno, errno.errorcode[code], call.__name__, args)
        return
    raise AssertionError("%s%r did not fail" % (call.__name__, args))
`;

async function nbdsh(uri: string, script: string): Promise<void> {
  // Debian's nbdsh takes the first python3 of PATH, but its module belongs to Debian's own.
  const env = { PATH: `/usr/bin:${process.env['PATH'] ?? ''}` };
  await mustRun('nbdsh', ['-u', uri, '-c', PRELUDE, '-c', script], { env });
}

function nbdshCase(
  name: string,
  script: string,
  check?: (imagePath: string, before: Buffer) => void,
  isReadOnly = false,
): InteropCase {
  return {
    name: `nbdsh: ${name}`,
    needs: ['nbdsh'],
    async run(context: CaseContext) {
      const image = context.image(SIZE_BYTES);
      const before = randomBytes(context.options.seed, SIZE_BYTES);
      const server = await context.serve(image, { isReadOnly });
      await nbdsh(server.uri, script);
      check?.(image, before);
    },
  };
}

function assertUnchanged(imagePath: string, before: Buffer): void {
  assertSameBytes(readFileRange(imagePath, 0, SIZE_BYTES), before, 'a refused request');
}

export const nbdshCases: readonly InteropCase[] = [
  nbdshCase(
    'reads past the end are EINVAL, the last byte is not past it',
    `
fails(errno.EINVAL, h.pread, 1, size)
fails(errno.EINVAL, h.pread, 2, size - 1)
fails(errno.EINVAL, h.pread, 512, size + 512)
fails(errno.EINVAL, h.pread, 4096, 2**63 - 4096)
fails(errno.EINVAL, h.pread, size + 1, 0)
assert len(h.pread(1, size - 1)) == 1
assert len(h.pread(size, 0)) == size
`,
  ),
  nbdshCase(
    'writes and zeroes past the end are ENOSPC, and change nothing',
    `
fails(errno.ENOSPC, h.pwrite, b"x", size)
fails(errno.ENOSPC, h.pwrite, b"xy", size - 1)
fails(errno.ENOSPC, h.pwrite, b"x" * 4096, 2**63 - 4096)
fails(errno.ENOSPC, h.zero, 1, size)
fails(errno.ENOSPC, h.zero, 65536, size - 4096)
fails(errno.ENOSPC, h.zero, 2**32 - 1, size - 4096)
# The connection must have stayed in step.
assert len(h.pread(512, 0)) == 512
`,
    assertUnchanged,
  ),
  nbdshCase(
    'trims past the end are refused',
    `
for count, offset in (1, size), (65536, size - 4096), (2**32 - 1, 0):
    fails(errno.EINVAL, h.trim, count, offset)
assert len(h.pread(512, 0)) == 512
`,
    assertUnchanged,
  ),
  nbdshCase(
    'a read-only export answers EPERM to every kind of write',
    `
assert h.is_read_only()
fails(errno.EPERM, h.pwrite, b"x" * 512, 0)
fails(errno.EPERM, h.pwrite, b"x" * 512, 0, flags=nbd.CMD_FLAG_FUA)
fails(errno.EPERM, h.pwrite, b"x" * 70001, 511)
fails(errno.EPERM, h.zero, 4096, 0)
fails(errno.EPERM, h.trim, 4096, 0)
assert len(h.pread(4096, 512)) == 4096
`,
    assertUnchanged,
    true,
  ),
  nbdshCase(
    'unknown flags are EINVAL, and the payload behind one is skipped',
    `
fails(errno.EINVAL, h.pread, 512, 0, flags=0x8000)
fails(errno.EINVAL, h.pwrite, b"x" * 5000, 0, flags=0x4000)
fails(errno.EINVAL, h.zero, 512, 0, flags=0x2000)
fails(errno.EINVAL, h.trim, 512, 0, flags=0x1000)
assert len(h.pread(512, 0)) == 512
`,
    assertUnchanged,
  ),
  nbdshCase(
    'flags that were not offered, or belong to another command, do no harm',
    `
def harmless(call, *args, **named):
    try:
        call(*args, **named)
    except nbd.Error as error:
        assert error.errnum in (errno.EINVAL, errno.ENOTSUP), error
harmless(h.zero, 512, 0, flags=nbd.CMD_FLAG_FAST_ZERO)
harmless(h.pread, 512, 0, flags=nbd.CMD_FLAG_DF)
harmless(h.pread, 512, 0, flags=nbd.CMD_FLAG_FUA)
harmless(h.flush, flags=nbd.CMD_FLAG_FUA)
harmless(h.pwrite, b"x" * 512, 0, flags=nbd.CMD_FLAG_NO_HOLE)
harmless(h.trim, 512, 0, flags=nbd.CMD_FLAG_REQ_ONE)
harmless(h.cache, 512, 0)
assert len(h.pread(512, 0)) == 512
`,
  ),
  nbdshCase(
    'requests of no length are answered, and change nothing',
    `
h.trim(0, 0)
h.zero(0, 0)
h.pwrite(b"", 0)
assert h.pread(0, 0) == b""
assert len(h.pread(512, 0)) == 512
`,
    assertUnchanged,
  ),
  nbdshCase(
    'FUA writes, trims and zeroes, and flushes',
    `
h.pwrite(b"A" * 1000, 1000, flags=nbd.CMD_FLAG_FUA)
h.pwrite(b"B" * 65536, 65536, flags=nbd.CMD_FLAG_FUA)
h.zero(3000, 70001, flags=nbd.CMD_FLAG_FUA)
h.zero(3000, 80001, flags=nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
h.trim(4096, 2**20, flags=nbd.CMD_FLAG_FUA)
h.flush()
assert h.pread(1000, 1000) == b"A" * 1000
assert h.pread(3000, 80001) == bytes(3000)
`,
    (imagePath, before) => {
      const expected = Buffer.from(before.subarray(0, 2 ** 20));
      expected.fill('A', 1000, 2000);
      expected.fill('B', 65536, 131072);
      expected.fill(0, 70001, 73001);
      expected.fill(0, 80001, 83001);
      assertSameBytes(readFileRange(imagePath, 0, 2 ** 20), expected, 'after FUA requests');
    },
  ),
  nbdshCase(
    'the whole disk zeroed and trimmed by one request each',
    `
h.zero(size, 0)
assert h.pread(size, 0) == bytes(size)
h.pwrite(b"C" * size, 0)
h.trim(size, 0)
h.zero(size, 0, flags=nbd.CMD_FLAG_NO_HOLE)
assert h.pread(size, 0) == bytes(size)
`,
  ),
  nbdshCase(
    '64 requests of odd sizes in flight on one connection',
    `
model = bytearray(h.pread(size, 0))
import random
rng = random.Random(7)
buffers = []
for i in range(64):
    start, end = i * 60001, i * 60001 + 1 + rng.randrange(60000)
    data = rng.randbytes(end - start)
    model[start:end] = data
    buffer = nbd.Buffer.from_bytearray(bytearray(data))
    buffers.append(buffer)
    h.aio_pwrite(buffer, start)
while h.aio_in_flight() > 0:
    h.poll(-1)
    while h.aio_in_flight() > 0 and h.aio_peek_command_completed() > 0:
        h.aio_command_completed(h.aio_peek_command_completed())
assert h.pread(size, 0) == bytes(model)
`,
  ),
  {
    name: 'nbdsh: two connections see each other at once, and a flush on one covers both',
    needs: ['nbdsh'],
    isOurs: true,
    async run(context) {
      const server = await context.serve(context.image(SIZE_BYTES));
      await nbdsh(
        server.uri,
        `
assert h.can_multi_conn()
other = nbd.NBD()
other.connect_uri("${server.uri}")
for i in range(50):
    h.pwrite(bytes([i]) * 777, i * 777)
    assert other.pread(777, i * 777) == bytes([i]) * 777
    other.flush()
other.shutdown()
h.shutdown()
`,
      );
    },
  },
];
