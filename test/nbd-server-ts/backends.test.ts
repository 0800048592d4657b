// Goal: the backends that come with the package keep what they promise. Method: each is compared
// with a plain array over random operations; what is special to one has its own test.

import { open, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type BlockBackend,
  BufferBackend,
  FileBackend,
  NbdErrno,
  NbdError,
  nbdErrnoOf,
  SparseMemoryBackend,
} from 'nbd-server-ts';
import t, { type Test } from 'tap';
import { freshSeed, Random } from './support/random.ts';
import { temporaryDirectory } from './support/test-server.ts';

const SIZE = 300_000;

async function compareWithModel(t: Test, backend: BlockBackend, seed: number): Promise<void> {
  const random = new Random(seed);
  const model = Buffer.alloc(SIZE);
  for (let step = 0; step < 200; step += 1) {
    const length = 1 + random.below(random.oneIn(3) ? 200_000 : 5_000);
    const offset = random.below(SIZE - length + 1);
    const action = random.pick(['write', 'write', 'zero', 'read']);
    if (action === 'write') {
      const data = Buffer.alloc(length, 1 + random.below(255));
      await backend.write?.(data, offset);
      data.copy(model, offset);
    } else if (action === 'zero' && backend.writeZeroes !== undefined) {
      await backend.writeZeroes(offset, length, { mayPunchHole: random.oneIn(2) });
      model.fill(0, offset, offset + length);
    }
    const target = Buffer.alloc(length, 0xee);
    await backend.read(target, offset);
    if (!target.equals(model.subarray(offset, offset + length))) {
      t.fail(`seed ${seed}, step ${step}: ${length} bytes at ${offset} differ`);
      return;
    }
  }
  await backend.flush?.();
  t.pass(`200 steps of seed ${seed}`);
}

void t.test('as a plain array', async (t) => {
  const path = join(temporaryDirectory(t), 'disk');
  await writeFile(path, Buffer.alloc(SIZE));
  const file = await FileBackend.open(path);
  const seed = freshSeed();
  await compareWithModel(t, new BufferBackend(new Uint8Array(SIZE)), seed);
  await compareWithModel(t, new SparseMemoryBackend(SIZE), seed);
  await compareWithModel(t, file, seed);
  await file.close();
});

void t.test('sparse memory takes and gives back room', async (t) => {
  const disk = new SparseMemoryBackend(2 ** 50);
  t.equal(disk.allocatedBytes, 0);
  disk.write(Buffer.from('x'), 2 ** 49);
  t.equal(disk.allocatedBytes, 65536);
  t.same(disk.allocation(2 ** 49 - 65536, 3 * 65536), [
    { lengthBytes: 65536, flags: 3 },
    { lengthBytes: 65536, flags: 0 },
    { lengthBytes: 65536, flags: 3 },
  ]);
  disk.writeZeroes(2 ** 49, 65536, { mayPunchHole: false });
  t.equal(disk.allocatedBytes, 65536, 'NO_HOLE keeps the room');
  disk.trim(2 ** 49 + 1, 65535);
  t.equal(disk.allocatedBytes, 65536, 'a part of a chunk does not free it');
  disk.trim(2 ** 49, 65536);
  t.equal(disk.allocatedBytes, 0);
  t.same(disk.allocation(100, 10), [{ lengthBytes: 10, flags: 3 }]);
  t.same(
    disk.allocation(0, 2 ** 50),
    [{ lengthBytes: 2 ** 32, flags: 3 }],
    'one answer covers a bounded number of chunks',
  );
  disk.write(Buffer.alloc(65536), 65000);
  t.same(disk.allocation(64999, 3 * 65536), [
    { lengthBytes: 537, flags: 0 },
    { lengthBytes: 65536, flags: 0 },
    { lengthBytes: 2 * 65536 - 537, flags: 3 },
  ]);
});

void t.test('a file', async (t) => {
  const path = join(temporaryDirectory(t), 'disk');
  await writeFile(path, 'hello');
  const readOnly = await FileBackend.open(path, { isReadOnly: true });
  t.equal(readOnly.isReadOnly, true);
  t.equal(readOnly.sizeBytes, 5);
  await readOnly.close();
  const part = await FileBackend.open(path, { sizeBytes: 3 });
  t.equal(part.sizeBytes, 3);
  await part.close();
  await t.rejects(FileBackend.open(path, { sizeBytes: 6 }), { code: 'ERR_NBD_FILE_SIZE' });
  await t.rejects(FileBackend.open('/dev/null'), { code: 'ERR_NBD_FILE_SIZE' });
  await t.rejects(FileBackend.open(`${path}.missing`), { code: 'ENOENT' });
  const cut = await FileBackend.open(path);
  await truncate(path, 2);
  await t.rejects(cut.read(new Uint8Array(4), 0), { name: 'NbdError', code: 'EIO', offset: 2 });
  await cut.close();
  await t.rejects(cut.read(new Uint8Array(1), 0));
  // Nobody else has the descriptor, or the runner would warn about a leak.
  await (await open(path)).close();
});

void t.test('errors become numbers of the protocol', async (t) => {
  const rows: readonly (readonly [unknown, number])[] = [
    [new NbdError('EPERM', ''), 1],
    [new NbdError('ESHUTDOWN', ''), 108],
    [Object.assign(new Error(), { code: 'EROFS' }), 1],
    [Object.assign(new Error(), { code: 'EACCES' }), 1],
    [Object.assign(new Error(), { code: 'EFBIG' }), 28],
    [Object.assign(new Error(), { code: 'EDQUOT' }), 28],
    [Object.assign(new Error(), { code: 'ENOSPC' }), 28],
    [Object.assign(new Error(), { code: 'ENOMEM' }), 12],
    [Object.assign(new Error(), { code: 'EINVAL' }), 22],
    [Object.assign(new Error(), { code: 'ENXIO' }), 5],
    [Object.assign(new Error(), { code: 7 }), 5],
    [new Error('x'), 5],
    ['a text', 5],
    [undefined, 5],
  ];
  for (const [error, errno] of rows) t.equal(nbdErrnoOf(error), errno);
  t.equal(new NbdError('EIO', 'x').errno, NbdErrno.EIO);
});
