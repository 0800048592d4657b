// Disk images whose content is the same for the same seed and nowhere repeated, so that a block
// read from the wrong place never compares equal; and a comparison that says where files differ.
import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';

const CHUNK_BYTES = 1024 * 1024;

/** `lengthBytes` of the pseudo-random stream that belongs to `seed`. */
export function randomBytes(seed: number, lengthBytes: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeDoubleBE(seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(lengthBytes));
}

/** Writes an image of the stream that belongs to `seed`. */
export function createDiskImage(path: string, sizeBytes: number, seed: number): void {
  const key = Buffer.alloc(16);
  key.writeDoubleBE(seed);
  const stream = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  const zeroes = Buffer.alloc(CHUNK_BYTES);
  const fd = openSync(path, 'w');
  for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
    writeSync(fd, stream.update(zeroes.subarray(0, Math.min(CHUNK_BYTES, sizeBytes - at))));
  }
  closeSync(fd);
}

/** An image that is one hole. */
export function createSparseImage(path: string, sizeBytes: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
}

/** `length` bytes of a file. */
export function readFileRange(path: string, offset: number, length: number): Buffer {
  const fd = openSync(path, 'r');
  const bytes = Buffer.alloc(length);
  const got = readSync(fd, bytes, 0, length, offset);
  closeSync(fd);
  return bytes.subarray(0, got);
}

/** Index of the first difference, or -1. */
function firstDifference(a: Buffer, b: Buffer): number {
  if (a.equals(b)) return -1;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return length;
}

/** @throws AssertionError that names the first byte which differs. */
export function assertSameBytes(actual: Buffer, expected: Buffer, what: string, base = 0): void {
  const at = firstDifference(actual, expected);
  if (at < 0) return;
  const show = (bytes: Buffer): string => bytes.subarray(at, at + 16).toString('hex');
  assert.fail(
    `${what}: byte ${base + at} differs: ${show(actual)} instead of ${show(expected)} ` +
      `(lengths ${actual.length} and ${expected.length})`,
  );
}

/** @throws AssertionError when the files differ in any byte or in size. */
export function assertSameFiles(actualPath: string, expectedPath: string, what: string): void {
  const actualFd = openSync(actualPath, 'r');
  const expectedFd = openSync(expectedPath, 'r');
  try {
    const sizeBytes = fstatSync(expectedFd).size;
    assert.equal(fstatSync(actualFd).size, sizeBytes, `${what}: size of ${actualPath}`);
    const actual = Buffer.alloc(CHUNK_BYTES);
    const expected = Buffer.alloc(CHUNK_BYTES);
    for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
      const actualBytes = readSync(actualFd, actual, 0, CHUNK_BYTES, at);
      const expectedBytes = readSync(expectedFd, expected, 0, CHUNK_BYTES, at);
      assertSameBytes(
        actual.subarray(0, actualBytes),
        expected.subarray(0, expectedBytes),
        what,
        at,
      );
    }
  } finally {
    closeSync(actualFd);
    closeSync(expectedFd);
  }
}
