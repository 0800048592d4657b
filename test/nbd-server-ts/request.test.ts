// Goal: requests are decoded and replies encoded exactly as the specification draws them.
// Method: golden bytes typed by hand, at an odd position of a buffer filled with 0xee.

import {
  createRequest,
  decodeExtendedRequest,
  decodeRequest,
  encodeChunkHeader,
  encodeErrorOffsetSuffix,
  encodeErrorPrefix,
  encodeExtendedChunkHeader,
  encodeOffsetDataPrefix,
  encodeOffsetHolePayload,
  encodeSimpleReply,
  NbdCmd,
  NbdCmdFlag,
  NbdErrno,
  NbdReplyFlag,
  NbdReplyType,
  requestPayloadBytes,
} from 'nbd-server-ts/protocol';
import t from 'tap';
import { hex, toHex } from './support/hex.ts';

const AT = 3;

function viewAt(text: string): DataView {
  const bytes = hex(text);
  const view = new DataView(new ArrayBuffer(AT + bytes.length));
  new Uint8Array(view.buffer).set(bytes, AT);
  return view;
}

function encoded(lengthBytes: number, encode: (view: DataView) => void): string {
  const bytes = new Uint8Array(AT + lengthBytes + 1).fill(0xee);
  encode(new DataView(bytes.buffer));
  t.equal(toHex(bytes.subarray(0, AT)), 'eeeeee', 'nothing is written before the message');
  t.equal(bytes[AT + lengthBytes], 0xee, 'nothing is written behind the message');
  return toHex(bytes.subarray(AT, AT + lengthBytes));
}

void t.test('a READ of 4096 at 0', async (t) => {
  const request = createRequest();
  const view = viewAt('25609513 0000 0000 0000000000000001 0000000000000000 00001000');
  t.equal(decodeRequest(view, AT, request), true);
  t.same(request, {
    flags: 0,
    command: NbdCmd.READ,
    cookieHigh: 0,
    cookieLow: 1,
    offset: 0,
    offsetHigh: 0,
    offsetLow: 0,
    lengthBytes: 4096,
  });
  t.equal(requestPayloadBytes(request), 0);
});

void t.test('a WRITE with all bits high stays unsigned', async (t) => {
  const request = createRequest();
  const view = viewAt('25609513 ffff 0001 fffffffffffffffe 001fffffffffffff ffffffff');
  t.equal(decodeRequest(view, AT, request), true);
  t.same(request, {
    flags: 0xffff,
    command: NbdCmd.WRITE,
    cookieHigh: 0xffffffff,
    cookieLow: 0xfffffffe,
    offset: Number.MAX_SAFE_INTEGER,
    offsetHigh: 0x1fffff,
    offsetLow: 0xffffffff,
    lengthBytes: 0xffffffff,
  });
  t.equal(requestPayloadBytes(request), 0xffffffff);
});

void t.test('an offset beyond 2^53 never looks small', async (t) => {
  const request = createRequest();
  for (const offset of ['0020000000000000', '0020000000000001', 'ffffffffffffffff']) {
    decodeRequest(viewAt(`25609513 0000 0000 0000000000000001 ${offset} 00000002`), AT, request);
    t.ok(request.offset >= 2 ** 53, offset);
  }
  t.equal(request.offsetHigh, 0xffffffff);
  t.equal(request.offsetLow, 0xffffffff);
});

void t.test('a wrong magic leaves the record alone', async (t) => {
  const request = createRequest();
  const tail = '0000 0000 0000000000000001 0000000000000000 00001000 00000000';
  for (const magic of ['25609514', '67446698', '21e41c71', '00000000', '13956025']) {
    t.equal(decodeRequest(viewAt(`${magic} ${tail}`), AT, request), false, magic);
  }
  for (const magic of ['25609513', '6e8a278c', '00000000']) {
    t.equal(decodeExtendedRequest(viewAt(`${magic} ${tail}`), AT, request), false, magic);
  }
  t.same(request, createRequest());
});

void t.test('an extended request', async (t) => {
  const request = createRequest();
  const view = viewAt('21e41c71 0020 0001 0102030405060708 0000000100000002 0000000300000004');
  t.equal(decodeExtendedRequest(view, AT, request), true);
  t.same(request, {
    flags: NbdCmdFlag.PAYLOAD_LEN,
    command: NbdCmd.WRITE,
    cookieHigh: 0x01020304,
    cookieLow: 0x05060708,
    offset: 0x1_0000_0002,
    offsetHigh: 1,
    offsetLow: 2,
    lengthBytes: 0x3_0000_0004,
  });
  t.equal(requestPayloadBytes(request, true), 0x3_0000_0004);
  request.command = NbdCmd.BLOCK_STATUS;
  t.equal(requestPayloadBytes(request, true), 0x3_0000_0004, 'PAYLOAD_LEN counts payload');
  t.equal(requestPayloadBytes(request, false), 0, 'and means nothing with compact headers');
  request.flags = 0;
  t.equal(requestPayloadBytes(request, true), 0);
  request.command = NbdCmd.WRITE;
  t.equal(requestPayloadBytes(request, true), 0x3_0000_0004, 'a WRITE always carries its data');
});

void t.test('reply headers', async (t) => {
  t.equal(
    encoded(16, (view) => encodeSimpleReply(view, AT, NbdErrno.EPERM, 0, 1)),
    '67446698000000010000000000000001',
  );
  t.equal(
    encoded(16, (view) => encodeSimpleReply(view, AT, 0, 0xfffefdfc, 0xfbfaf9f8)),
    '6744669800000000fffefdfcfbfaf9f8',
  );
  const { DONE } = NbdReplyFlag;
  t.equal(
    encoded(20, (v) => encodeChunkHeader(v, AT, DONE, NbdReplyType.ERROR, 1, 2, 6)),
    '668e33ef00018001000000010000000200000006',
  );
  t.equal(
    encoded(20, (v) => encodeChunkHeader(v, AT, 0, NbdReplyType.OFFSET_DATA, 0, 9, 0xffffffff)),
    '668e33ef000000010000000000000009ffffffff',
  );
  t.equal(
    encoded(32, (v) =>
      encodeExtendedChunkHeader(v, AT, DONE, NbdReplyType.NONE, 1, 2, 3, 4, 0x5_0000_0006),
    ),
    '6e8a278c00010000000000010000000200000003000000040000000500000006',
  );
});

void t.test('chunk payload fields', async (t) => {
  t.equal(
    encoded(8, (view) => encodeOffsetDataPrefix(view, AT, Number.MAX_SAFE_INTEGER)),
    '001fffffffffffff',
  );
  t.equal(
    encoded(12, (view) => encodeOffsetHolePayload(view, AT, 0x1_0000_0200, 0x1000)),
    '000000010000020000001000',
  );
  t.equal(
    encoded(6, (view) => encodeErrorPrefix(view, AT, NbdErrno.EIO, 0x0102)),
    '000000050102',
  );
  t.equal(
    encoded(8, (view) => encodeErrorOffsetSuffix(view, AT, 0x80000000)),
    '0000000080000000',
  );
});
