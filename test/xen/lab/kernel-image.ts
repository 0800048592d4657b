/**
 * A kernel as Debian packs it, unpacked. Xen and xl can do so as well, but an emulated processor
 * takes eight seconds for it at each boot.
 */
import { execFileSync } from 'node:child_process';

// The header of a bzImage (Documentation/arch/x86/boot.rst of Linux).
const SETUP_SECTORS_AT = 0x1f1;
const MAGIC_AT = 0x202;
const PAYLOAD_OFFSET_AT = 0x248;
const PAYLOAD_LENGTH_AT = 0x24c;
const SECTOR_BYTES = 512;
/** What is behind the compressed bytes: how many there are when they are not. */
const SIZE_BYTES = 4;
const XZ_MAGIC = 'fd377a585a00';

/** The ELF file in a bzImage; what is not compressed by xz stays as it is. */
export function unpackKernel(image: Buffer): Buffer {
  if (image.toString('latin1', MAGIC_AT, MAGIC_AT + 4) !== 'HdrS') return image;
  const codeAt = (image.readUInt8(SETUP_SECTORS_AT) + 1) * SECTOR_BYTES;
  const start = codeAt + image.readUInt32LE(PAYLOAD_OFFSET_AT);
  const end = start + image.readUInt32LE(PAYLOAD_LENGTH_AT) - SIZE_BYTES;
  const payload = image.subarray(start, end);
  if (payload.toString('hex', 0, XZ_MAGIC.length / 2) !== XZ_MAGIC) return image;
  return execFileSync('xz', ['-dc'], { input: payload, maxBuffer: image.readUInt32LE(end) + 1 });
}
