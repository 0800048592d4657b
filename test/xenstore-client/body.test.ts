// Goal: what a peer may get wrong in a body is refused with the right error, and the limits of
// paths,
// permissions and numbers hold at n - 1, n and n + 1. Method: tables.
import t from 'tap';
import {
  describePathFault,
  encodeReply,
  encodeRequest,
  formatPermission,
  isValidPath,
  nameOfXsType,
  type Packet,
  parseDecimal,
  parseDomid,
  parsePermission,
  parseReply,
  parseRequest,
  parseWatchEvent,
  pathKindOf,
  resolvePath,
  sliceDirectory,
  XenStoreProtocolError,
  XsType,
} from 'xenstore-client/wire';

function packet(type: number, body: string): Packet {
  return { type, reqId: 1, txId: 0, payload: Buffer.from(body, 'latin1') };
}

void t.test('paths', (t) => {
  const valid = ['/', '/a', '/local/domain/0/a-b_c@d', 'device/vbd/51712', 'a', '@releaseDomain'];
  valid.push(`/${'a'.repeat(3071)}`, 'a'.repeat(2048), '@releaseDomain/5');
  for (const path of valid) t.equal(describePathFault(path), undefined, path.slice(0, 40));
  const invalid = [
    '',
    '//',
    '/a/',
    'a/',
    '/a//b',
    '/a b',
    '/a.b',
    '/a\0',
    '/ä',
    '/a\n',
    '@',
    '/a:b',
  ];
  invalid.push(`/${'a'.repeat(3072)}`, 'a'.repeat(2049), `@${'a'.repeat(2048)}`);
  for (const path of invalid) t.notOk(isValidPath(path), JSON.stringify(path.slice(0, 40)));
  t.equal(pathKindOf('/a'), 'absolute');
  t.equal(pathKindOf('a'), 'relative');
  t.equal(pathKindOf('@a'), 'special');
  t.equal(resolvePath('a/b', '/local/domain/5'), '/local/domain/5/a/b');
  t.equal(resolvePath('a', '/'), '/a');
  t.equal(resolvePath('/a', '/local/domain/5'), '/a');
  t.equal(resolvePath('@releaseDomain', '/local/domain/5'), '@releaseDomain');
  t.end();
});

void t.test('permissions and numbers', (t) => {
  t.strictSame(parsePermission('n0'), { domid: 0, access: 'none' });
  t.strictSame(parsePermission('b65535'), { domid: 65535, access: 'both' });
  for (const text of ['', 'n', 'x0', 'n-1', 'n65536', 'r 5', 'r5 ', 'R5', '5', 'n0x1']) {
    t.equal(parsePermission(text), undefined, JSON.stringify(text));
  }
  t.equal(formatPermission({ domid: 5, access: 'read' }), 'r5');
  for (const domid of [-1, 65536, 1.5, Number.NaN]) {
    t.throws(() => formatPermission({ domid, access: 'read' }), { code: 'EINVAL' }, String(domid));
  }
  t.equal(parseDomid('65535'), 65535);
  t.equal(parseDomid('65536'), undefined);
  t.equal(parseDecimal('999999999999999'), 999999999999999);
  for (const text of ['', '-1', '+1', '1e3', '0x1', ' 1', '1000000000000000']) {
    t.equal(parseDecimal(text), undefined, JSON.stringify(text));
  }
  t.end();
});

void t.test('malformed requests are EINVAL', (t) => {
  const rows: readonly (readonly [number, string])[] = [
    [XsType.READ, ''],
    [XsType.READ, 'a'],
    [XsType.READ, 'a\0b\0'],
    [XsType.READ, '\0'],
    [XsType.READ, '@releaseDomain\0'],
    [XsType.RM, 'a/\0'],
    [XsType.MKDIR, '/a b\0'],
    [XsType.DIRECTORY, `/${'a'.repeat(3072)}\0`],
    [XsType.WRITE, ''],
    [XsType.WRITE, 'a'],
    [XsType.WRITE, '\0value'],
    [XsType.GET_PERMS, 'a\0b\0'],
    [XsType.SET_PERMS, 'a\0'],
    [XsType.SET_PERMS, 'a\0n0\0x1\0'],
    [XsType.SET_PERMS, 'a\0n0'],
    [XsType.WATCH, 'a\0'],
    [XsType.WATCH, 'a\0t'],
    [XsType.WATCH, 'a\0t\0x\0'],
    [XsType.WATCH, 'a\0t\x001\x001\0'],
    [XsType.UNWATCH, 'a\0'],
    [XsType.UNWATCH, 'a\0t\0u\0'],
    [XsType.TRANSACTION_END, ''],
    [XsType.TRANSACTION_END, '\0'],
    [XsType.TRANSACTION_END, 'X\0'],
    [XsType.TRANSACTION_END, 'T'],
    [XsType.DIRECTORY_PART, 'a\0'],
    [XsType.DIRECTORY_PART, 'a\0-1\0'],
    [XsType.DIRECTORY_PART, 'a\0\0'],
    [XsType.GET_DOMAIN_PATH, '65536\0'],
    [XsType.GET_DOMAIN_PATH, '\0'],
    [XsType.IS_DOMAIN_INTRODUCED, ''],
    [XsType.INTRODUCE, '5\x001\0'],
    [XsType.SET_TARGET, '5\0'],
    [XsType.CONTROL, ''],
    [XsType.GET_FEATURE, 'x\0'],
    [XsType.SET_FEATURE, '5\0'],
    [XsType.GET_QUOTA, 'x\0nodes\0'],
    [XsType.SET_QUOTA, 'nodes\0'],
    [XsType.SET_QUOTA, 'nodes\0x\0'],
  ];
  for (const [type, body] of rows) {
    const name = `${nameOfXsType(type)} ${JSON.stringify(body.slice(0, 30))}`;
    t.throws(() => parseRequest(packet(type, body)), { code: 'EINVAL' }, name);
  }
  t.end();
});

void t.test('types that are no request are ENOSYS', (t) => {
  for (const type of [XsType.WATCH_EVENT, XsType.ERROR, 20, 27, 0xffff, 0xffffffff]) {
    t.throws(() => parseRequest(packet(type, 'a\0')), { code: 'ENOSYS' }, String(type));
  }
  t.equal(nameOfXsType(20), 'type 20');
  t.end();
});

void t.test('bodies that servers do not look at', (t) => {
  t.strictSame(parseRequest(packet(XsType.TRANSACTION_START, '')), { type: 6 });
  t.strictSame(parseRequest(packet(XsType.RESET_WATCHES, '')), { type: 21 });
  const introduce = { type: 8, domid: 5, frame: 1, eventChannelPort: 2 };
  t.strictSame(parseRequest(packet(XsType.INTRODUCE, '5\x001\x002\0x\0')), introduce, 'reserved');
  t.end();
});

void t.test('malformed replies break the protocol', (t) => {
  const rows: readonly (readonly [number, string])[] = [
    [XsType.DIRECTORY, 'a'],
    [XsType.DIRECTORY, '\0'],
    [XsType.DIRECTORY, 'a\0\0b\0'],
    [XsType.DIRECTORY_PART, ''],
    [XsType.DIRECTORY_PART, '7'],
    [XsType.DIRECTORY_PART, '7\0'],
    [XsType.DIRECTORY_PART, '7\0a'],
    [XsType.DIRECTORY_PART, '7\0\0a\0'],
    [XsType.GET_PERMS, ''],
    [XsType.GET_PERMS, 'q1\0'],
    [XsType.TRANSACTION_START, '\0'],
    [XsType.TRANSACTION_START, '0\0'],
    [XsType.TRANSACTION_START, '4294967296\0'],
    [XsType.IS_DOMAIN_INTRODUCED, 'yes\0'],
    [XsType.GET_DOMAIN_PATH, '/a\0/b\0'],
    [XsType.WRITE, ''],
    [XsType.WRITE, 'NO\0'],
    [XsType.ERROR, ''],
    [XsType.ERROR, '\0'],
    [20, 'OK\0'],
    [0xffff, 'OK\0'],
  ];
  for (const [type, body] of rows) {
    const name = `${nameOfXsType(type)} ${JSON.stringify(body)}`;
    t.throws(() => parseReply(packet(type, body)), XenStoreProtocolError, name);
  }
  for (const body of ['', 'a', 'a\0', 'a\0b']) {
    t.throws(() => parseWatchEvent(packet(XsType.WATCH_EVENT, body)), XenStoreProtocolError, body);
  }
  t.throws(() => parseWatchEvent(packet(XsType.READ, 'a\0b\0')), XenStoreProtocolError);
  t.end();
});

void t.test('the NUL at the end of short replies may be missing, as some servers have it', (t) => {
  t.strictSame(parseReply(packet(XsType.WRITE, 'OK')), { type: XsType.WRITE });
  t.strictSame(parseReply(packet(XsType.ERROR, 'ENOENT')), { type: XsType.ERROR, name: 'ENOENT' });
  const path = { type: XsType.GET_DOMAIN_PATH, path: '/local/domain/5' };
  t.strictSame(parseReply(packet(XsType.GET_DOMAIN_PATH, '/local/domain/5')), path);
  t.end();
});

void t.test('a client cannot be made to send what the protocol forbids', (t) => {
  const bad = [
    () => encodeRequest({ type: XsType.READ, path: 'a\0b' }, 1),
    () => encodeRequest({ type: XsType.READ, path: '@releaseDomain' }, 1),
    () => encodeRequest({ type: XsType.WATCH, path: 'a', token: 'a\0b' }, 1),
    () => encodeRequest({ type: XsType.WATCH, path: 'a', token: '\u0100' }, 1),
    () => encodeRequest({ type: XsType.SET_PERMS, path: 'a', permissions: [] }, 1),
    () => encodeRequest({ type: XsType.GET_DOMAIN_PATH, domid: 65536 }, 1),
    () => encodeRequest({ type: XsType.DIRECTORY_PART, path: 'a', offsetBytes: -1 }, 1),
  ];
  for (const encode of bad) t.throws(encode, { code: 'EINVAL' });
  const write = (valueBytes: number) => () =>
    encodeRequest({ type: XsType.WRITE, path: 'ab', value: new Uint8Array(valueBytes) }, 1);
  t.equal(write(4093)().length, 4112, 'a path of 2, a NUL and a value of 4093 fill a packet');
  t.throws(write(4094), { code: 'E2BIG' });
  t.throws(() => encodeReply({ type: XsType.DIRECTORY, names: ['a'.repeat(4096)] }, 1), {
    code: 'E2BIG',
  });
  t.end();
});

void t.test('a list of children is sliced as xenstored does it', (t) => {
  const names = Array.from({ length: 1000 }, (_, index) => `name${index}`);
  const got: string[] = [];
  let offsetBytes = 0;
  for (let isLast = false; !isLast; ) {
    const part = sliceDirectory(names, '12', offsetBytes);
    t.ok(encodeReply(part, 1).length <= 4112, 'fits');
    got.push(...part.names);
    offsetBytes += part.names.reduce((sum, name) => sum + name.length + 1, 0);
    isLast = part.isLast;
  }
  t.strictSame(got, names);
  const end = { type: XsType.DIRECTORY_PART, generation: '12', names: [], isLast: true };
  t.strictSame(sliceDirectory(names, '12', offsetBytes), end, 'at the end');
  t.strictSame(sliceDirectory(names, '12', offsetBytes + 99), end, 'beyond the end');
  t.strictSame(sliceDirectory([], '12', 0), end, 'no children');
  t.strictSame(sliceDirectory(['abc', 'd'], '1', 1).names, ['bc', 'd'], 'within a name');
  t.strictSame(sliceDirectory(['abc', 'd'], '1', 3).names, ['', 'd'], 'at its NUL');
  // 4096 - "1" NUL - NUL of the end = 4093 bytes for names: one of 4092 fits, one of 4093 does not.
  t.ok(sliceDirectory(['a'.repeat(4092)], '1', 0).isLast);
  t.notOk(sliceDirectory(['a'.repeat(4093)], '1', 0).isLast);
  t.end();
});
