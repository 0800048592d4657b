// Goal: an export announces what it can, and only that; names in logs are those of the
// specification. Method: values typed by hand.

import {
  type Agreement,
  assertExportInfo,
  createExportInfo,
  type ExportInfo,
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

const GIB = 1024 ** 3;
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
const structured: Agreement = { isStructured: true, isExtended: false, hasMetaContexts: false };

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
    { sizeBytes: 4097, minimumBlockBytes: 512 },
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
