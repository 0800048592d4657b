// Goal: every rule of the request check gives the code the specification asks for, at the edge.
// Method: one table; each row differs from a good request in one thing.

import {
  type Agreement,
  checkRequest,
  createExportInfo,
  createRequest,
  type ExportInfo,
  explainRefusal,
  NbdCmd,
  NbdCmdFlag,
  nbdErrnoName,
} from 'nbd-server-ts/protocol';
import t from 'tap';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

const full: ExportInfo = createExportInfo({
  sizeBytes: GIB,
  canFlush: true,
  canFua: true,
  canTrim: true,
  canWriteZeroes: true,
  canFastZero: true,
  isZeroFast: true,
  canCache: true,
});
const poor = createExportInfo({ sizeBytes: GIB });
const readOnly: ExportInfo = { ...full, isReadOnly: true };
const slowZero: ExportInfo = { ...full, isZeroFast: false };
const largest: ExportInfo = { ...full, sizeBytes: Number.MAX_SAFE_INTEGER };
const sectors: ExportInfo = { ...full, minimumBlockBytes: 512 };
const empty: ExportInfo = { ...full, sizeBytes: 0 };

const simple: Agreement = { isStructured: false, isExtended: false, hasMetaContexts: false };
const structured: Agreement = { ...simple, isStructured: true };
const withContext: Agreement = { ...structured, hasMetaContexts: true };
const extended: Agreement = { isStructured: true, isExtended: true, hasMetaContexts: true };

const { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE } = NbdCmd;
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = NbdCmdFlag;

type Row = readonly [
  expected: string,
  what: string,
  info: ExportInfo,
  agreement: Agreement,
  command: number,
  offset: number,
  lengthBytes: number,
  flags?: number,
];

const rows: readonly Row[] = [
  ['OK', 'READ up to the last byte', full, simple, READ, GIB - 1, 1],
  ['EINVAL', 'READ one byte past the end', full, simple, READ, GIB - 1, 2],
  ['EINVAL', 'READ that begins past the end', full, simple, READ, GIB + 1, 1],
  ['EINVAL', 'READ whose end overflows u64', full, simple, READ, 2 ** 64 - 1, 2],
  ['EINVAL', 'READ at 2^53 of the largest export', largest, simple, READ, 2 ** 53, 1],
  ['EINVAL', 'READ over 2^53 of the largest export', largest, simple, READ, 2 ** 53 - 1, 1],
  ['OK', 'READ up to 2^53 - 1', largest, simple, READ, 2 ** 53 - 2, 1],
  ['OK', 'READ at an odd offset', full, simple, READ, 1, 3],
  ['OK', 'READ of nothing', full, simple, READ, GIB, 0],
  ['OK', 'READ of nothing from nothing', empty, simple, READ, 0, 0],
  ['EINVAL', 'READ of nothing past the end', full, simple, READ, GIB + 1, 0],
  ['OK', 'READ of 64 MiB', full, simple, READ, 0, 64 * MIB],
  ['EINVAL', 'READ of 64 MiB and one byte', full, simple, READ, 0, 64 * MIB + 1],
  ['OK', 'READ with FUA', full, simple, READ, 0, 1, FUA],
  ['EINVAL', 'READ with DF, unstructured', full, simple, READ, 0, 1, DF],
  ['OK', 'READ with DF, structured', full, structured, READ, 0, 1, DF],
  ['OK', 'READ of a read-only export', readOnly, simple, READ, 0, 1],
  ['OK', 'WRITE up to the last byte', full, simple, WRITE, GIB - 1, 1],
  ['ENOSPC', 'WRITE one byte past the end', full, simple, WRITE, GIB - 1, 2],
  ['ENOSPC', 'WRITE at 2^64 - 1', full, simple, WRITE, 2 ** 64 - 1, 2],
  ['EPERM', 'WRITE on a read-only export', readOnly, simple, WRITE, 0, 1],
  ['EPERM', 'WRITE past the end of a read-only export', readOnly, simple, WRITE, GIB, 1],
  ['OK', 'WRITE of nothing', full, simple, WRITE, 0, 0],
  ['OK', 'WRITE with FUA', full, simple, WRITE, 0, 1, FUA],
  ['EINVAL', 'WRITE with FUA that was not offered', poor, simple, WRITE, 0, 1, FUA],
  ['OK', 'WRITE of 64 MiB', full, simple, WRITE, 0, 64 * MIB],
  ['EINVAL', 'WRITE of 64 MiB and one byte', full, simple, WRITE, 0, 64 * MIB + 1],
  ['EINVAL', 'WRITE with DF', full, structured, WRITE, 0, 1, DF],
  ['EINVAL', 'WRITE with NO_HOLE', full, simple, WRITE, 0, 1, NO_HOLE],
  ['EINVAL', 'WRITE with FAST_ZERO', full, simple, WRITE, 0, 1, FAST_ZERO],
  ['EINVAL', 'WRITE with REQ_ONE', full, simple, WRITE, 0, 1, REQ_ONE],
  ['EINVAL', 'WRITE with PAYLOAD_LEN, compact', full, structured, WRITE, 0, 1, PAYLOAD_LEN],
  ['OK', 'WRITE with PAYLOAD_LEN, extended', full, extended, WRITE, 0, 1, PAYLOAD_LEN],
  ['OK', 'WRITE without PAYLOAD_LEN, extended', full, extended, WRITE, 0, 1],
  ['EINVAL', 'WRITE with an unknown flag', full, simple, WRITE, 0, 1, 0x40],
  ['EINVAL', 'READ with an unknown flag', full, extended, READ, 0, 1, 0x8000],
  ['OK', 'FLUSH', full, simple, FLUSH, 0, 0],
  ['OK', 'FLUSH with FUA', full, simple, FLUSH, 0, 0, FUA],
  ['OK', 'FLUSH of a read-only export', readOnly, simple, FLUSH, 0, 0],
  ['EINVAL', 'FLUSH with an offset', full, simple, FLUSH, 1, 0],
  ['EINVAL', 'FLUSH with a length', full, simple, FLUSH, 0, 1],
  ['EINVAL', 'FLUSH that was not offered', poor, simple, FLUSH, 0, 0],
  ['OK', 'TRIM of everything', full, simple, TRIM, 0, GIB],
  ['OK', 'TRIM with FUA', full, simple, TRIM, 0, 1, FUA],
  ['EINVAL', 'TRIM past the end', full, simple, TRIM, 1, GIB],
  ['EINVAL', 'TRIM that was not offered', poor, simple, TRIM, 0, 1],
  ['EPERM', 'TRIM on a read-only export', readOnly, simple, TRIM, 0, 1],
  ['EINVAL', 'TRIM with FAST_ZERO', full, simple, TRIM, 0, 1, FAST_ZERO],
  ['OK', 'WRITE_ZEROES of everything', full, simple, WRITE_ZEROES, 0, GIB],
  ['OK', 'WRITE_ZEROES of 2^32 - 1', largest, simple, WRITE_ZEROES, 0, 2 ** 32 - 1],
  ['OK', 'WRITE_ZEROES of 2^40, extended', largest, extended, WRITE_ZEROES, 0, 2 ** 40],
  [
    'OK',
    'WRITE_ZEROES with all its flags',
    full,
    simple,
    WRITE_ZEROES,
    0,
    1,
    FUA | NO_HOLE | FAST_ZERO,
  ],
  ['ENOTSUP', 'FAST_ZERO where zeroing is slow', slowZero, simple, WRITE_ZEROES, 0, 1, FAST_ZERO],
  ['OK', 'plain zeroes where zeroing is slow', slowZero, simple, WRITE_ZEROES, 0, 1],
  [
    'EINVAL',
    'FAST_ZERO that was not offered',
    { ...full, canFastZero: false },
    simple,
    WRITE_ZEROES,
    0,
    1,
    FAST_ZERO,
  ],
  ['ENOSPC', 'WRITE_ZEROES past the end', full, simple, WRITE_ZEROES, 1, GIB],
  ['EINVAL', 'WRITE_ZEROES that was not offered', poor, simple, WRITE_ZEROES, 0, 1],
  ['EPERM', 'WRITE_ZEROES on a read-only export', readOnly, simple, WRITE_ZEROES, 0, 1],
  ['EINVAL', 'WRITE_ZEROES with PAYLOAD_LEN', full, extended, WRITE_ZEROES, 0, 1, PAYLOAD_LEN],
  ['OK', 'CACHE', full, simple, CACHE, 0, GIB],
  ['EINVAL', 'CACHE past the end', full, simple, CACHE, 1, GIB],
  ['EINVAL', 'CACHE that was not offered', poor, simple, CACHE, 0, 1],
  ['EINVAL', 'BLOCK_STATUS, unstructured', full, simple, BLOCK_STATUS, 0, 1],
  ['EINVAL', 'BLOCK_STATUS without a context', full, structured, BLOCK_STATUS, 0, 1],
  ['OK', 'BLOCK_STATUS', full, withContext, BLOCK_STATUS, 0, GIB, REQ_ONE],
  ['EINVAL', 'BLOCK_STATUS past the end', full, withContext, BLOCK_STATUS, 1, GIB],
  ['EINVAL', 'BLOCK_STATUS of nothing', full, withContext, BLOCK_STATUS, 0, 0],
  ['OK', 'READ of whole sectors', sectors, simple, READ, 512, 1024],
  ['EINVAL', 'READ at an odd offset of sectors', sectors, simple, READ, 511, 512],
  ['EINVAL', 'READ of an odd length of sectors', sectors, simple, READ, 512, 513],
  ['ENOSPC', 'an odd WRITE past the end of sectors', sectors, simple, WRITE, GIB - 1, 2],
  ['EINVAL', 'RESIZE', full, extended, RESIZE, 0, 0],
  ['EINVAL', 'DISC, which the caller should have taken', full, simple, DISC, 0, 0],
  ['EINVAL', 'command 9', full, simple, 9, 0, 0],
  ['EINVAL', 'command 65535', full, simple, 65535, 0, 0],
];

void t.test('one row per rule', async (t) => {
  for (const [expected, what, info, agreement, command, offset, lengthBytes, flags] of rows) {
    const request = { ...createRequest(), command, offset, lengthBytes, flags: flags ?? 0 };
    t.equal(nbdErrnoName(checkRequest(request, info, agreement)), expected, what);
  }
});

void t.test('without an agreement the client asked for nothing', async (t) => {
  const request = { ...createRequest(), command: READ, lengthBytes: 1, flags: DF };
  t.equal(nbdErrnoName(checkRequest(request, full)), 'EINVAL');
});

void t.test('a refusal is explained', async (t) => {
  const rows: readonly (readonly [RegExp, ExportInfo, number, number, number, number?])[] = [
    [/READ past the end \(offset 1073741823, length 2/, full, READ, GIB - 1, 2],
    [/WRITE is not possible: the export is read-only/, readOnly, WRITE, 0, 1],
    [/READ of 67108865 bytes: at most 67108864/, full, READ, 0, 64 * MIB + 1],
    [/READ with flags DF: not known, not allowed here, or not agreed on/, full, READ, 0, 1, DF],
    [/FLUSH with a range/, full, FLUSH, 0, 1],
    [/TRIM was not offered/, poor, TRIM, 0, 1],
    [/NBD_CMD_\?\(99\) was not offered/, full, 99, 0, 0],
    [/WRITE_ZEROES would not be faster/, slowZero, WRITE_ZEROES, 0, 1, FAST_ZERO],
    [/READ not aligned to 512 bytes/, sectors, READ, 1, 1],
    [/BLOCK_STATUS was not offered/, full, BLOCK_STATUS, 0, 1],
  ];
  for (const [text, info, command, offset, lengthBytes, flags] of rows) {
    const request = { ...createRequest(), command, offset, lengthBytes, flags: flags ?? 0 };
    t.match(explainRefusal(request, info, checkRequest(request, info)), text);
  }
});
