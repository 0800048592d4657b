// Goal: every message of the protocol, in both directions, against bytes typed from xs_wire.h and
// docs/misc/xenstore.txt, so that a mistake that encoder and decoder share cannot hide. Each
// row is checked both ways: value to bytes, and bytes to value.
import t from 'tap';
import {
  decodePacket,
  encodeReply,
  encodeRequest,
  encodeWatchEvent,
  type Permission,
  parseReply,
  parseRequest,
  parseWatchEvent,
  type XsReply,
  type XsRequest,
  XsType,
} from 'xenstore-client/wire';

interface Row<T> {
  readonly name: string;
  readonly value: T;
  readonly reqId: number;
  readonly txId: number;
  /** type, req_id, tx_id, len: four little-endian u32. */
  readonly header: string;
  readonly payload: string;
}

function ascii(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'latin1'));
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

const n0r5w3b2: readonly Permission[] = [
  { domid: 0, access: 'none' },
  { domid: 5, access: 'read' },
  { domid: 3, access: 'write' },
  { domid: 2, access: 'both' },
];

const requests: readonly Row<XsRequest>[] = [
  {
    name: 'READ',
    value: { type: XsType.READ, path: 'device/vbd/51712' },
    reqId: 1,
    txId: 0,
    header: '02000000 01000000 00000000 11000000',
    payload: '64 65 76 69 63 65 2f 76 62 64 2f 35 31 37 31 32 00',
  },
  {
    name: 'READ in a transaction',
    value: { type: XsType.READ, path: '/' },
    reqId: 2,
    txId: 7,
    header: '02000000 02000000 07000000 02000000',
    payload: '2f 00',
  },
  {
    name: 'DIRECTORY',
    value: { type: XsType.DIRECTORY, path: 'device' },
    reqId: 3,
    txId: 0,
    header: '01000000 03000000 00000000 07000000',
    payload: '64 65 76 69 63 65 00',
  },
  {
    name: 'GET_PERMS',
    value: { type: XsType.GET_PERMS, path: '/a' },
    reqId: 4,
    txId: 0,
    header: '03000000 04000000 00000000 03000000',
    payload: '2f 61 00',
  },
  {
    name: 'GET_PERMS of an event',
    value: { type: XsType.GET_PERMS, path: '@releaseDomain' },
    reqId: 4,
    txId: 0,
    header: '03000000 04000000 00000000 0f000000',
    payload: '40 72 65 6c 65 61 73 65 44 6f 6d 61 69 6e 00',
  },
  {
    name: 'WATCH',
    value: { type: XsType.WATCH, path: 'a/b', token: 'tok' },
    reqId: 5,
    txId: 0,
    header: '04000000 05000000 00000000 08000000',
    payload: '61 2f 62 00 74 6f 6b 00',
  },
  {
    name: 'WATCH with a depth',
    value: { type: XsType.WATCH, path: 'a', token: 't', depth: 0 },
    reqId: 5,
    txId: 0,
    header: '04000000 05000000 00000000 06000000',
    payload: '61 00 74 00 30 00',
  },
  {
    name: 'WATCH of an event',
    value: { type: XsType.WATCH, path: '@introduceDomain', token: 't' },
    reqId: 5,
    txId: 0,
    header: '04000000 05000000 00000000 13000000',
    payload: '40 69 6e 74 72 6f 64 75 63 65 44 6f 6d 61 69 6e 00 74 00',
  },
  {
    name: 'UNWATCH',
    value: { type: XsType.UNWATCH, path: 'a/b', token: 'tok' },
    reqId: 6,
    txId: 0,
    header: '05000000 06000000 00000000 08000000',
    payload: '61 2f 62 00 74 6f 6b 00',
  },
  {
    name: 'TRANSACTION_START',
    value: { type: XsType.TRANSACTION_START },
    reqId: 7,
    txId: 0,
    header: '06000000 07000000 00000000 01000000',
    payload: '00',
  },
  {
    name: 'TRANSACTION_END, commit',
    value: { type: XsType.TRANSACTION_END, commit: true },
    reqId: 8,
    txId: 305419896,
    header: '07000000 08000000 78563412 02000000',
    payload: '54 00',
  },
  {
    name: 'TRANSACTION_END, drop',
    value: { type: XsType.TRANSACTION_END, commit: false },
    reqId: 8,
    txId: 1,
    header: '07000000 08000000 01000000 02000000',
    payload: '46 00',
  },
  {
    name: 'INTRODUCE',
    value: { type: XsType.INTRODUCE, domid: 5, frame: 1234, eventChannelPort: 7 },
    reqId: 9,
    txId: 0,
    header: '08000000 09000000 00000000 09000000',
    payload: '35 00 31 32 33 34 00 37 00',
  },
  {
    name: 'RELEASE',
    value: { type: XsType.RELEASE, domid: 5 },
    reqId: 10,
    txId: 0,
    header: '09000000 0a000000 00000000 02000000',
    payload: '35 00',
  },
  {
    name: 'GET_DOMAIN_PATH',
    value: { type: XsType.GET_DOMAIN_PATH, domid: 65535 },
    reqId: 11,
    txId: 0,
    header: '0a000000 0b000000 00000000 06000000',
    payload: '36 35 35 33 35 00',
  },
  {
    name: 'WRITE',
    value: { type: XsType.WRITE, path: 'a', value: ascii('4') },
    reqId: 12,
    txId: 3,
    header: '0b000000 0c000000 03000000 03000000',
    payload: '61 00 34',
  },
  {
    name: 'WRITE of nothing',
    value: { type: XsType.WRITE, path: 'a', value: ascii('') },
    reqId: 12,
    txId: 0,
    header: '0b000000 0c000000 00000000 02000000',
    payload: '61 00',
  },
  {
    name: 'WRITE of octets',
    value: { type: XsType.WRITE, path: 'a', value: Uint8Array.of(0, 255, 0) },
    reqId: 12,
    txId: 0,
    header: '0b000000 0c000000 00000000 05000000',
    payload: '61 00 00 ff 00',
  },
  {
    name: 'MKDIR',
    value: { type: XsType.MKDIR, path: 'a' },
    reqId: 13,
    txId: 0,
    header: '0c000000 0d000000 00000000 02000000',
    payload: '61 00',
  },
  {
    name: 'RM',
    value: { type: XsType.RM, path: 'a' },
    reqId: 4294967295,
    txId: 0,
    header: '0d000000 ffffffff 00000000 02000000',
    payload: '61 00',
  },
  {
    name: 'SET_PERMS',
    value: { type: XsType.SET_PERMS, path: 'a', permissions: n0r5w3b2 },
    reqId: 15,
    txId: 0,
    header: '0e000000 0f000000 00000000 0e000000',
    payload: '61 00 6e 30 00 72 35 00 77 33 00 62 32 00',
  },
  {
    name: 'IS_DOMAIN_INTRODUCED',
    value: { type: XsType.IS_DOMAIN_INTRODUCED, domid: 0 },
    reqId: 18,
    txId: 0,
    header: '11000000 12000000 00000000 02000000',
    payload: '30 00',
  },
  {
    name: 'RESUME',
    value: { type: XsType.RESUME, domid: 5 },
    reqId: 19,
    txId: 0,
    header: '12000000 13000000 00000000 02000000',
    payload: '35 00',
  },
  {
    name: 'SET_TARGET',
    value: { type: XsType.SET_TARGET, domid: 5, targetDomid: 6 },
    reqId: 20,
    txId: 0,
    header: '13000000 14000000 00000000 04000000',
    payload: '35 00 36 00',
  },
  {
    name: 'RESET_WATCHES',
    value: { type: XsType.RESET_WATCHES },
    reqId: 22,
    txId: 0,
    header: '15000000 16000000 00000000 01000000',
    payload: '00',
  },
  {
    name: 'DIRECTORY_PART',
    value: { type: XsType.DIRECTORY_PART, path: 'a', offsetBytes: 4090 },
    reqId: 23,
    txId: 0,
    header: '16000000 17000000 00000000 07000000',
    payload: '61 00 34 30 39 30 00',
  },
  {
    name: 'CONTROL',
    value: { type: XsType.CONTROL, args: ['log', 'on'] },
    reqId: 24,
    txId: 0,
    header: '00000000 18000000 00000000 07000000',
    payload: '6c 6f 67 00 6f 6e 00',
  },
  {
    name: 'GET_FEATURE',
    value: { type: XsType.GET_FEATURE },
    reqId: 25,
    txId: 0,
    header: '17000000 19000000 00000000 00000000',
    payload: '',
  },
  {
    name: 'GET_FEATURE of a domain',
    value: { type: XsType.GET_FEATURE, domid: 5 },
    reqId: 25,
    txId: 0,
    header: '17000000 19000000 00000000 02000000',
    payload: '35 00',
  },
  {
    name: 'SET_FEATURE',
    value: { type: XsType.SET_FEATURE, domid: 5, features: 3 },
    reqId: 26,
    txId: 0,
    header: '18000000 1a000000 00000000 04000000',
    payload: '35 00 33 00',
  },
  {
    name: 'GET_QUOTA, names',
    value: { type: XsType.GET_QUOTA },
    reqId: 27,
    txId: 0,
    header: '19000000 1b000000 00000000 00000000',
    payload: '',
  },
  {
    name: 'GET_QUOTA, global',
    value: { type: XsType.GET_QUOTA, quota: 'nodes' },
    reqId: 27,
    txId: 0,
    header: '19000000 1b000000 00000000 06000000',
    payload: '6e 6f 64 65 73 00',
  },
  {
    name: 'GET_QUOTA of a domain',
    value: { type: XsType.GET_QUOTA, domid: 5, quota: 'nodes' },
    reqId: 27,
    txId: 0,
    header: '19000000 1b000000 00000000 08000000',
    payload: '35 00 6e 6f 64 65 73 00',
  },
  {
    name: 'SET_QUOTA, global',
    value: { type: XsType.SET_QUOTA, quota: 'nodes', value: 9 },
    reqId: 28,
    txId: 0,
    header: '1a000000 1c000000 00000000 08000000',
    payload: '6e 6f 64 65 73 00 39 00',
  },
  {
    name: 'SET_QUOTA of a domain',
    value: { type: XsType.SET_QUOTA, domid: 5, quota: 'nodes', value: 0 },
    reqId: 28,
    txId: 0,
    header: '1a000000 1c000000 00000000 0a000000',
    payload: '35 00 6e 6f 64 65 73 00 30 00',
  },
];

const replies: readonly Row<XsReply>[] = [
  {
    name: 'READ',
    value: { type: XsType.READ, value: ascii('4') },
    reqId: 1,
    txId: 0,
    header: '02000000 01000000 00000000 01000000',
    payload: '34',
  },
  {
    name: 'READ of nothing',
    value: { type: XsType.READ, value: ascii('') },
    reqId: 1,
    txId: 0,
    header: '02000000 01000000 00000000 00000000',
    payload: '',
  },
  {
    name: 'DIRECTORY',
    value: { type: XsType.DIRECTORY, names: ['vbd', 'vif'] },
    reqId: 3,
    txId: 0,
    header: '01000000 03000000 00000000 08000000',
    payload: '76 62 64 00 76 69 66 00',
  },
  {
    name: 'DIRECTORY without children',
    value: { type: XsType.DIRECTORY, names: [] },
    reqId: 3,
    txId: 0,
    header: '01000000 03000000 00000000 00000000',
    payload: '',
  },
  {
    name: 'DIRECTORY_PART in the middle',
    value: { type: XsType.DIRECTORY_PART, generation: '77', names: ['a', 'b'], isLast: false },
    reqId: 3,
    txId: 9,
    header: '16000000 03000000 09000000 07000000',
    payload: '37 37 00 61 00 62 00',
  },
  {
    name: 'DIRECTORY_PART at the end',
    value: { type: XsType.DIRECTORY_PART, generation: '77', names: ['c'], isLast: true },
    reqId: 3,
    txId: 0,
    header: '16000000 03000000 00000000 06000000',
    payload: '37 37 00 63 00 00',
  },
  {
    name: 'DIRECTORY_PART beyond the end',
    value: { type: XsType.DIRECTORY_PART, generation: '77', names: [], isLast: true },
    reqId: 3,
    txId: 0,
    header: '16000000 03000000 00000000 04000000',
    payload: '37 37 00 00',
  },
  {
    name: 'GET_PERMS',
    value: { type: XsType.GET_PERMS, permissions: n0r5w3b2 },
    reqId: 4,
    txId: 0,
    header: '03000000 04000000 00000000 0c000000',
    payload: '6e 30 00 72 35 00 77 33 00 62 32 00',
  },
  {
    name: 'TRANSACTION_START',
    value: { type: XsType.TRANSACTION_START, transactionId: 4294967295 },
    reqId: 7,
    txId: 0,
    header: '06000000 07000000 00000000 0b000000',
    payload: '34 32 39 34 39 36 37 32 39 35 00',
  },
  {
    name: 'GET_DOMAIN_PATH',
    value: { type: XsType.GET_DOMAIN_PATH, path: '/local/domain/5' },
    reqId: 11,
    txId: 0,
    header: '0a000000 0b000000 00000000 10000000',
    payload: '2f 6c 6f 63 61 6c 2f 64 6f 6d 61 69 6e 2f 35 00',
  },
  {
    name: 'IS_DOMAIN_INTRODUCED, yes',
    value: { type: XsType.IS_DOMAIN_INTRODUCED, introduced: true },
    reqId: 18,
    txId: 0,
    header: '11000000 12000000 00000000 02000000',
    payload: '54 00',
  },
  {
    name: 'IS_DOMAIN_INTRODUCED, no',
    value: { type: XsType.IS_DOMAIN_INTRODUCED, introduced: false },
    reqId: 18,
    txId: 0,
    header: '11000000 12000000 00000000 02000000',
    payload: '46 00',
  },
  {
    name: 'CONTROL',
    value: { type: XsType.CONTROL, text: 'OK' },
    reqId: 24,
    txId: 0,
    header: '00000000 18000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'GET_FEATURE',
    value: { type: XsType.GET_FEATURE, text: '3' },
    reqId: 25,
    txId: 0,
    header: '17000000 19000000 00000000 02000000',
    payload: '33 00',
  },
  {
    name: 'GET_QUOTA',
    value: { type: XsType.GET_QUOTA, text: 'nodes watches' },
    reqId: 27,
    txId: 0,
    header: '19000000 1b000000 00000000 0e000000',
    payload: '6e 6f 64 65 73 20 77 61 74 63 68 65 73 00',
  },
  {
    name: 'ERROR',
    value: { type: XsType.ERROR, name: 'ENOENT' },
    reqId: 1,
    txId: 7,
    header: '10000000 01000000 07000000 07000000',
    payload: '45 4e 4f 45 4e 54 00',
  },
  {
    name: 'WATCH',
    value: { type: XsType.WATCH },
    reqId: 104,
    txId: 0,
    header: '04000000 68000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'UNWATCH',
    value: { type: XsType.UNWATCH },
    reqId: 105,
    txId: 0,
    header: '05000000 69000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'TRANSACTION_END',
    value: { type: XsType.TRANSACTION_END },
    reqId: 107,
    txId: 0,
    header: '07000000 6b000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'INTRODUCE',
    value: { type: XsType.INTRODUCE },
    reqId: 108,
    txId: 0,
    header: '08000000 6c000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'RELEASE',
    value: { type: XsType.RELEASE },
    reqId: 109,
    txId: 0,
    header: '09000000 6d000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'WRITE',
    value: { type: XsType.WRITE },
    reqId: 111,
    txId: 0,
    header: '0b000000 6f000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'MKDIR',
    value: { type: XsType.MKDIR },
    reqId: 112,
    txId: 0,
    header: '0c000000 70000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'RM',
    value: { type: XsType.RM },
    reqId: 113,
    txId: 0,
    header: '0d000000 71000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'SET_PERMS',
    value: { type: XsType.SET_PERMS },
    reqId: 114,
    txId: 0,
    header: '0e000000 72000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'RESUME',
    value: { type: XsType.RESUME },
    reqId: 118,
    txId: 0,
    header: '12000000 76000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'SET_TARGET',
    value: { type: XsType.SET_TARGET },
    reqId: 119,
    txId: 0,
    header: '13000000 77000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'RESET_WATCHES',
    value: { type: XsType.RESET_WATCHES },
    reqId: 121,
    txId: 0,
    header: '15000000 79000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'SET_FEATURE',
    value: { type: XsType.SET_FEATURE },
    reqId: 124,
    txId: 0,
    header: '18000000 7c000000 00000000 03000000',
    payload: '4f 4b 00',
  },
  {
    name: 'SET_QUOTA',
    value: { type: XsType.SET_QUOTA },
    reqId: 126,
    txId: 0,
    header: '1a000000 7e000000 00000000 03000000',
    payload: '4f 4b 00',
  },
];

for (const row of requests) {
  void t.test(`request: ${row.name}`, (t) => {
    const bytes = hex(row.header + row.payload);
    t.strictSame(new Uint8Array(encodeRequest(row.value, row.reqId, row.txId)), bytes, 'encoded');
    const packet = decodePacket(bytes);
    t.equal(packet.reqId, row.reqId, 'request id');
    t.equal(packet.txId, row.txId, 'transaction id');
    t.strictSame(parseRequest(packet), row.value, 'parsed');
    t.end();
  });
}

for (const row of replies) {
  void t.test(`reply: ${row.name}`, (t) => {
    const bytes = hex(row.header + row.payload);
    t.strictSame(new Uint8Array(encodeReply(row.value, row.reqId, row.txId)), bytes, 'encoded');
    const packet = decodePacket(bytes);
    t.equal(packet.reqId, row.reqId, 'request id');
    t.equal(packet.txId, row.txId, 'transaction id');
    t.strictSame(parseReply(packet), row.value, 'parsed');
    t.end();
  });
}

void t.test('watch event', (t) => {
  const bytes = hex(
    '0f000000 00000000 00000000 08000000' + '61 2f 62 00 74 6f 6b 00', // a/b, tok
  );
  t.strictSame(new Uint8Array(encodeWatchEvent({ path: 'a/b', token: 'tok' })), bytes, 'encoded');
  t.strictSame(parseWatchEvent(decodePacket(bytes)), { path: 'a/b', token: 'tok' }, 'parsed');
  t.end();
});

void t.test('every type that can be sent or answered has a row', (t) => {
  const asked = new Set(requests.map((row) => row.value.type));
  const answered = new Set(replies.map((row) => row.value.type));
  for (const [name, type] of Object.entries(XsType)) {
    if (type === XsType.WATCH_EVENT) continue;
    t.ok(answered.has(type as XsReply['type']), `${name} as a reply`);
    if (type === XsType.ERROR) continue;
    t.ok(asked.has(type as XsRequest['type']), `${name} as a request`);
  }
  t.end();
});
