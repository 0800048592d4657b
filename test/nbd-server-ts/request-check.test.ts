// Goal: every rule of the request check gives the code the specification asks for, at the edge.
// Method: one table; each row differs from a good request in one thing.

import {
  type Agreement,
  assertExportInfo,
  checkRequest,
  createExportInfo,
  createRequest,
  type ExportInfo,
  NbdCmd,
  NbdCmdFlag,
  NbdFlag,
  nbdCmdFlagNames,
  nbdCmdName,
  nbdErrnoName,
  nbdFlagNames,
  nbdInfoName,
  nbdOptName,
  nbdReplyTypeName,
  nbdRepName,
  transmissionFlags,
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
  request: { command: number; offset?: number; lengthBytes?: number; flags?: number },
];

const rows: readonly Row[] = [
  [
    'OK',
    'READ up to the last byte',
    full,
    simple,
    { command: READ, offset: GIB - 1, lengthBytes: 1 },
  ],
  [
    'EINVAL',
    'READ one byte past the end',
    full,
    simple,
    { command: READ, offset: GIB - 1, lengthBytes: 2 },
  ],
  [
    'EINVAL',
    'READ that begins past the end',
    full,
    simple,
    { command: READ, offset: GIB + 1, lengthBytes: 1 },
  ],
  [
    'EINVAL',
    'READ whose end overflows u64',
    full,
    simple,
    { command: READ, offset: 2 ** 64 - 1, lengthBytes: 2 },
  ],
  [
    'EINVAL',
    'READ at 2^53 of the largest export',
    largest,
    simple,
    { command: READ, offset: 2 ** 53, lengthBytes: 1 },
  ],
  [
    'EINVAL',
    'READ over 2^53 of the largest export',
    largest,
    simple,
    { command: READ, offset: 2 ** 53 - 1, lengthBytes: 1 },
  ],
  [
    'OK',
    'READ up to 2^53 - 1',
    largest,
    simple,
    { command: READ, offset: 2 ** 53 - 2, lengthBytes: 1 },
  ],
  ['OK', 'READ at an odd offset', full, simple, { command: READ, offset: 1, lengthBytes: 3 }],
  ['OK', 'READ of nothing', full, simple, { command: READ, offset: GIB, lengthBytes: 0 }],
  ['OK', 'READ of nothing from nothing', empty, simple, { command: READ }],
  ['EINVAL', 'READ of nothing past the end', full, simple, { command: READ, offset: GIB + 1 }],
  ['OK', 'READ of 64 MiB', full, simple, { command: READ, lengthBytes: 64 * MIB }],
  [
    'EINVAL',
    'READ of 64 MiB and one byte',
    full,
    simple,
    { command: READ, lengthBytes: 64 * MIB + 1 },
  ],
  ['OK', 'READ with FUA', full, simple, { command: READ, lengthBytes: 1, flags: FUA }],
  [
    'EINVAL',
    'READ with DF, unstructured',
    full,
    simple,
    { command: READ, lengthBytes: 1, flags: DF },
  ],
  [
    'OK',
    'READ with DF, structured',
    full,
    structured,
    { command: READ, lengthBytes: 1, flags: DF },
  ],
  ['OK', 'READ of a read-only export', readOnly, simple, { command: READ, lengthBytes: 1 }],
  [
    'OK',
    'WRITE up to the last byte',
    full,
    simple,
    { command: WRITE, offset: GIB - 1, lengthBytes: 1 },
  ],
  [
    'ENOSPC',
    'WRITE one byte past the end',
    full,
    simple,
    { command: WRITE, offset: GIB - 1, lengthBytes: 2 },
  ],
  [
    'ENOSPC',
    'WRITE at 2^64 - 1',
    full,
    simple,
    { command: WRITE, offset: 2 ** 64 - 1, lengthBytes: 2 },
  ],
  ['EPERM', 'WRITE on a read-only export', readOnly, simple, { command: WRITE, lengthBytes: 1 }],
  [
    'EPERM',
    'WRITE past the end of a read-only export',
    readOnly,
    simple,
    { command: WRITE, offset: GIB, lengthBytes: 1 },
  ],
  ['OK', 'WRITE of nothing', full, simple, { command: WRITE }],
  ['OK', 'WRITE with FUA', full, simple, { command: WRITE, lengthBytes: 1, flags: FUA }],
  [
    'EINVAL',
    'WRITE with FUA that was not offered',
    poor,
    simple,
    { command: WRITE, lengthBytes: 1, flags: FUA },
  ],
  ['OK', 'WRITE of 64 MiB', full, simple, { command: WRITE, lengthBytes: 64 * MIB }],
  [
    'EINVAL',
    'WRITE of 64 MiB and one byte',
    full,
    simple,
    { command: WRITE, lengthBytes: 64 * MIB + 1 },
  ],
  ['EINVAL', 'WRITE with DF', full, structured, { command: WRITE, lengthBytes: 1, flags: DF }],
  [
    'EINVAL',
    'WRITE with NO_HOLE',
    full,
    simple,
    { command: WRITE, lengthBytes: 1, flags: NO_HOLE },
  ],
  [
    'EINVAL',
    'WRITE with FAST_ZERO',
    full,
    simple,
    { command: WRITE, lengthBytes: 1, flags: FAST_ZERO },
  ],
  [
    'EINVAL',
    'WRITE with REQ_ONE',
    full,
    simple,
    { command: WRITE, lengthBytes: 1, flags: REQ_ONE },
  ],
  [
    'EINVAL',
    'WRITE with PAYLOAD_LEN, compact',
    full,
    structured,
    { command: WRITE, lengthBytes: 1, flags: PAYLOAD_LEN },
  ],
  [
    'OK',
    'WRITE with PAYLOAD_LEN, extended',
    full,
    extended,
    { command: WRITE, lengthBytes: 1, flags: PAYLOAD_LEN },
  ],
  ['OK', 'WRITE without PAYLOAD_LEN, extended', full, extended, { command: WRITE, lengthBytes: 1 }],
  [
    'EINVAL',
    'WRITE with an unknown flag',
    full,
    simple,
    { command: WRITE, lengthBytes: 1, flags: 0x40 },
  ],
  [
    'EINVAL',
    'READ with an unknown flag',
    full,
    extended,
    { command: READ, lengthBytes: 1, flags: 0x8000 },
  ],
  ['OK', 'FLUSH', full, simple, { command: FLUSH }],
  ['OK', 'FLUSH with FUA', full, simple, { command: FLUSH, flags: FUA }],
  ['OK', 'FLUSH of a read-only export', readOnly, simple, { command: FLUSH }],
  ['EINVAL', 'FLUSH with an offset', full, simple, { command: FLUSH, offset: 1 }],
  ['EINVAL', 'FLUSH with a length', full, simple, { command: FLUSH, lengthBytes: 1 }],
  ['EINVAL', 'FLUSH that was not offered', poor, simple, { command: FLUSH }],
  ['OK', 'TRIM of everything', full, simple, { command: TRIM, lengthBytes: GIB }],
  ['OK', 'TRIM with FUA', full, simple, { command: TRIM, lengthBytes: 1, flags: FUA }],
  ['EINVAL', 'TRIM past the end', full, simple, { command: TRIM, offset: 1, lengthBytes: GIB }],
  ['EINVAL', 'TRIM that was not offered', poor, simple, { command: TRIM, lengthBytes: 1 }],
  ['EPERM', 'TRIM on a read-only export', readOnly, simple, { command: TRIM, lengthBytes: 1 }],
  [
    'EINVAL',
    'TRIM with FAST_ZERO',
    full,
    simple,
    { command: TRIM, lengthBytes: 1, flags: FAST_ZERO },
  ],
  ['OK', 'WRITE_ZEROES of everything', full, simple, { command: WRITE_ZEROES, lengthBytes: GIB }],
  [
    'OK',
    'WRITE_ZEROES of 2^32 - 1',
    largest,
    simple,
    { command: WRITE_ZEROES, lengthBytes: 2 ** 32 - 1 },
  ],
  [
    'OK',
    'WRITE_ZEROES of 2^40, extended',
    largest,
    extended,
    { command: WRITE_ZEROES, lengthBytes: 2 ** 40 },
  ],
  [
    'OK',
    'WRITE_ZEROES with all its flags',
    full,
    simple,
    { command: WRITE_ZEROES, lengthBytes: 1, flags: FUA | NO_HOLE | FAST_ZERO },
  ],
  [
    'ENOTSUP',
    'FAST_ZERO where zeroing is slow',
    slowZero,
    simple,
    { command: WRITE_ZEROES, lengthBytes: 1, flags: FAST_ZERO },
  ],
  [
    'OK',
    'plain zeroes where zeroing is slow',
    slowZero,
    simple,
    { command: WRITE_ZEROES, lengthBytes: 1 },
  ],
  [
    'EINVAL',
    'FAST_ZERO that was not offered',
    { ...full, canFastZero: false },
    simple,
    { command: WRITE_ZEROES, lengthBytes: 1, flags: FAST_ZERO },
  ],
  [
    'ENOSPC',
    'WRITE_ZEROES past the end',
    full,
    simple,
    { command: WRITE_ZEROES, offset: 1, lengthBytes: GIB },
  ],
  [
    'EINVAL',
    'WRITE_ZEROES that was not offered',
    poor,
    simple,
    { command: WRITE_ZEROES, lengthBytes: 1 },
  ],
  [
    'EPERM',
    'WRITE_ZEROES on a read-only export',
    readOnly,
    simple,
    { command: WRITE_ZEROES, lengthBytes: 1 },
  ],
  [
    'EINVAL',
    'WRITE_ZEROES with PAYLOAD_LEN',
    full,
    extended,
    { command: WRITE_ZEROES, lengthBytes: 1, flags: PAYLOAD_LEN },
  ],
  ['OK', 'CACHE', full, simple, { command: CACHE, lengthBytes: GIB }],
  ['EINVAL', 'CACHE past the end', full, simple, { command: CACHE, offset: 1, lengthBytes: GIB }],
  ['EINVAL', 'CACHE that was not offered', poor, simple, { command: CACHE, lengthBytes: 1 }],
  ['EINVAL', 'BLOCK_STATUS, unstructured', full, simple, { command: BLOCK_STATUS, lengthBytes: 1 }],
  [
    'EINVAL',
    'BLOCK_STATUS without a context',
    full,
    structured,
    { command: BLOCK_STATUS, lengthBytes: 1 },
  ],
  [
    'OK',
    'BLOCK_STATUS',
    full,
    withContext,
    { command: BLOCK_STATUS, lengthBytes: GIB, flags: REQ_ONE },
  ],
  [
    'EINVAL',
    'BLOCK_STATUS past the end',
    full,
    withContext,
    { command: BLOCK_STATUS, offset: 1, lengthBytes: GIB },
  ],
  ['EINVAL', 'BLOCK_STATUS of nothing', full, withContext, { command: BLOCK_STATUS }],
  ['EINVAL', 'RESIZE', full, extended, { command: RESIZE }],
  ['EINVAL', 'DISC, which the caller should have taken', full, simple, { command: DISC }],
  ['EINVAL', 'command 9', full, simple, { command: 9 }],
  ['EINVAL', 'command 65535', full, simple, { command: 65535 }],
];

void t.test('one row per rule', async (t) => {
  for (const [expected, what, info, agreement, fields] of rows) {
    const request = { ...createRequest(), ...fields };
    t.equal(nbdErrnoName(checkRequest(request, info, agreement)), expected, what);
  }
});

void t.test('without an agreement the client asked for nothing', async (t) => {
  const request = { ...createRequest(), command: READ, lengthBytes: 1, flags: DF };
  t.equal(nbdErrnoName(checkRequest(request, full)), 'EINVAL');
});

void t.test('transmission flags', async (t) => {
  const vbd = createExportInfo({
    sizeBytes: GIB,
    canFlush: true,
    canFua: true,
    canTrim: true,
    canWriteZeroes: true,
  });
  t.equal(transmissionFlags(vbd), 0x006d);
  t.equal(transmissionFlags(poor), 0x0001);
  t.equal(transmissionFlags(full), 0x0c6d);
  t.equal(transmissionFlags(full, structured), 0x0ced);
  t.equal(transmissionFlags({ ...full, canMultiConn: true, isRotational: true }), 0x0d7d);
  t.equal(transmissionFlags({ ...readOnly, canMultiConn: true }), 0x0507, 'nothing that writes');
  t.equal(
    transmissionFlags({ ...full, canWriteZeroes: false }) & NbdFlag.SEND_FAST_ZERO,
    0,
    'FAST_ZERO needs WRITE_ZEROES',
  );
});

void t.test('an export that cannot exist is refused at once', async (t) => {
  for (const wrong of [
    { sizeBytes: -1 },
    { sizeBytes: 1.5 },
    { sizeBytes: 2 ** 53 },
    { minimumBlockBytes: 0 },
    { minimumBlockBytes: 3 },
    { minimumBlockBytes: 131072 },
    { preferredBlockBytes: 256 },
    { minimumBlockBytes: 8192, preferredBlockBytes: 4096 },
    { maxPayloadBytes: 2048 },
    { maxPayloadBytes: 2 ** 32 },
    { maxRequestBytes: 1024 * 1024 },
  ]) {
    t.throws(() => assertExportInfo({ ...full, ...wrong }), JSON.stringify(wrong));
  }
  assertExportInfo({ ...full, minimumBlockBytes: 65536, preferredBlockBytes: 65536 });
});

void t.test('names for logs', async (t) => {
  t.equal(nbdCmdName(6), 'NBD_CMD_WRITE_ZEROES');
  t.equal(nbdCmdName(99), 'NBD_CMD_?(99)');
  t.equal(nbdOptName(7), 'NBD_OPT_GO');
  t.equal(nbdRepName(0x80000005), 'NBD_REP_ERR_TLS_REQD');
  t.equal(nbdInfoName(3), 'NBD_INFO_BLOCK_SIZE');
  t.equal(nbdReplyTypeName(0x8002), 'NBD_REPLY_TYPE_ERROR_OFFSET');
  t.equal(nbdErrnoName(108), 'ESHUTDOWN');
  t.equal(nbdErrnoName(7), '?(7)');
  t.equal(nbdCmdFlagNames(0x0003), 'FUA|NO_HOLE');
  t.equal(nbdCmdFlagNames(0), 'none');
  t.equal(nbdCmdFlagNames(0x8001), 'FUA|?(0x8000)');
  t.equal(nbdFlagNames(0x006d), 'HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES');
});
