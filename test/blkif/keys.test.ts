/**
 * Goal: XenStore keys become typed values or a clear refusal, and our keys are laid out so that
 * Linux, QEMU and FreeBSD read them. Method: key sets as the real back ends write them, each value
 * bent in each way, and the traps of the key layout one by one.
 */

import t from 'tap';
import {
  BlkifAbi,
  encodeFrontendKeys,
  formatXenbusState,
  isConnectionKey,
  KeyError,
  parseDiskProperties,
  parseFrontendKeys,
  parseTransportLimits,
  parseXenbusState,
  XenbusState,
  xenbusStateName,
} from '../../src/blkif/index.ts';

function keys(values: Record<string, string>): Map<string, string> {
  return new Map(Object.entries(values));
}

const BLKBACK = {
  sectors: '2097152',
  info: '0',
  'sector-size': '512',
  'physical-sector-size': '4096',
  mode: 'w',
  'device-type': 'disk',
  'feature-flush-cache': '1',
  'feature-barrier': '1',
  'feature-persistent': '1',
  'feature-discard': '1',
  'discard-granularity': '4096',
  'discard-alignment': '0',
  'discard-secure': '0',
};

void t.test('transport limits: defaults, the offers of Linux, old spellings, cuts', (t) => {
  t.same(parseTransportLimits(keys({})), {
    maxRingPageOrder: 0,
    maxQueues: 1,
    maxIndirectSegments: 0,
  });
  t.same(
    parseTransportLimits(
      keys({
        'max-ring-page-order': '4',
        'multi-queue-max-queues': '8',
        'feature-max-indirect-segments': '256',
      }),
    ),
    { maxRingPageOrder: 4, maxQueues: 8, maxIndirectSegments: 256 },
  );
  const order = (values: Record<string, string>): number =>
    parseTransportLimits(keys(values)).maxRingPageOrder;
  t.equal(order({ 'max-ring-pages': '8' }), 3);
  t.equal(order({ 'max-ring-pages': '9' }), 3, 'a page count that is no power of two is cut');
  t.equal(order({ 'max-ring-pages': '0' }), 0);
  t.equal(order({ 'max-ring-pages': '16', 'max-ring-page-order': '1' }), 1, 'the order wins');
  t.equal(order({ 'max-ring-page-order': '31' }), 4);
  t.same(
    parseTransportLimits(
      keys({ 'multi-queue-max-queues': '0', 'feature-max-indirect-segments': '100000' }),
    ),
    { maxRingPageOrder: 0, maxQueues: 1, maxIndirectSegments: 4096 },
  );
  t.end();
});

void t.test('disk properties of a Linux back end', (t) => {
  t.same(parseDiskProperties(keys(BLKBACK)), {
    sectors: 2097152,
    sectorSize: 512,
    physicalSectorSize: 4096,
    isReadOnly: false,
    isCdrom: false,
    isRemovable: false,
    canFlush: true,
    canBarrier: true,
    isPersistent: true,
    discard: { granularityBytes: 4096, alignmentBytes: 0, isSecure: false },
  });
  t.end();
});

void t.test('disk properties: defaults of a plain back end', (t) => {
  t.same(parseDiskProperties(keys({ sectors: '8' })), {
    sectors: 8,
    sectorSize: 512,
    physicalSectorSize: 512,
    isReadOnly: false,
    isCdrom: false,
    isRemovable: false,
    canFlush: false,
    canBarrier: false,
    isPersistent: false,
    discard: undefined,
  });
  t.end();
});

void t.test('read-only by info, by mode, or as a CD-ROM', (t) => {
  const of = (changed: Record<string, string>): ReturnType<typeof parseDiskProperties> =>
    parseDiskProperties(keys({ ...BLKBACK, ...changed }));
  t.equal(of({ info: '4' }).isReadOnly, true);
  t.equal(of({ mode: 'r' }).isReadOnly, true);
  t.equal(of({ mode: 'w!' }).isReadOnly, false);
  t.match(of({ info: '1' }), { isReadOnly: true, isCdrom: true });
  t.match(of({ 'device-type': 'cdrom' }), { isReadOnly: true, isCdrom: true });
  t.match(of({ info: '2' }), { isReadOnly: false, isRemovable: true });
  t.end();
});

void t.test('sizes are exact to 2^53 bytes, and cut to whole sectors', (t) => {
  const sectors = (value: string, size = '512'): number =>
    parseDiskProperties(keys({ ...BLKBACK, sectors: value, 'sector-size': size })).sectors;
  t.equal(sectors('17592186044416'), 2 ** 44);
  t.throws(() => sectors('17592186044417'), /sectors is "17592186044417": it must not be above/);
  t.equal(sectors('4294967297'), 2 ** 32 + 1);
  t.equal(sectors('23', '4096'), 16);
  t.throws(() => sectors('7', '4096'), /without a whole sector/);
  t.end();
});

void t.test('an empty drive has no sectors, a disk must have some', (t) => {
  const empty = { ...BLKBACK, sectors: '0' };
  t.equal(parseDiskProperties(keys({ ...empty, info: '1' })).sectors, 0);
  t.equal(parseDiskProperties(keys({ ...empty, info: '2' })).sectors, 0);
  t.throws(() => parseDiskProperties(keys(empty)), /without a whole sector/);
  t.end();
});

void t.test('absurd values are refused, with the key named', (t) => {
  const refused: [key: string, values: string[]][] = [
    ['sectors', ['', ' 8', '8 ', '-8', '+8', '0x10', '1e3', '8.0', '8\n', '99999999999999999']],
    ['sector-size', ['0', '1', '511', '513', '1536', '256', '8192', '65536', 'x']],
    ['physical-sector-size', ['x', '-1', '']],
    ['info', ['x', '4294967296']],
    ['feature-flush-cache', ['yes', '-1', '']],
    ['feature-barrier', ['true']],
    ['feature-persistent', ['1 ']],
    ['feature-discard', ['on']],
    ['discard-granularity', ['x', '513', '4097']],
    ['discard-alignment', ['x', '1']],
    ['discard-secure', ['x']],
  ];
  for (const [key, values] of refused) {
    for (const value of values) {
      t.throws(
        () => parseDiskProperties(keys({ ...BLKBACK, [key]: value })),
        { name: 'KeyError', key },
        `${key}="${value}"`,
      );
    }
  }
  t.throws(() => parseDiskProperties(keys({})), /key sectors is missing: it is required/);
  for (const key of [
    'max-ring-page-order',
    'max-ring-pages',
    'multi-queue-max-queues',
    'feature-max-indirect-segments',
  ]) {
    t.throws(() => parseTransportLimits(keys({ [key]: 'x' })), { name: 'KeyError', key });
  }
  t.end();
});

void t.test('a refusal shows the value cut and on one line', (t) => {
  const error = new KeyError('info', `a\nb\u0000${'c'.repeat(1000)}`, 'it is wrong');
  t.ok(error.message.length < 100);
  t.match(error.message, /^The key info is "a\?b\?c+\.\.\.": it is wrong\.$/);
  t.end();
});

void t.test('hints are dropped when they cannot be followed', (t) => {
  const physical = (value: string): number =>
    parseDiskProperties(keys({ ...BLKBACK, 'physical-sector-size': value })).physicalSectorSize;
  t.equal(physical('0'), 512);
  t.equal(physical('1000'), 512);
  t.equal(physical('256'), 512);
  t.equal(physical('4294967295'), 512);
  t.equal(physical('65536'), 65536);
  t.end();
});

void t.test('discard: a missing granularity is the sector, the alignment is below it', (t) => {
  const discard = (values: Record<string, string>): unknown =>
    parseDiskProperties(keys({ sectors: '8', 'feature-discard': '1', ...values })).discard;
  t.same(discard({}), { granularityBytes: 512, alignmentBytes: 0, isSecure: false });
  t.same(discard({ 'discard-granularity': '65536', 'discard-alignment': '66048' }), {
    granularityBytes: 65536,
    alignmentBytes: 512,
    isSecure: false,
  });
  t.same(discard({ 'discard-secure': '1' }), {
    granularityBytes: 512,
    alignmentBytes: 0,
    isSecure: true,
  });
  t.equal(discard({ 'feature-discard': '0' }), undefined);
  t.end();
});

void t.test('our keys: one page and one queue', (t) => {
  t.same(
    encodeFrontendKeys({
      abi: BlkifAbi.X86_64,
      isPersistent: false,
      queues: [{ ringGrefs: Uint32Array.of(8), port: 15 }],
    }),
    [
      ['ring-ref', '8'],
      ['event-channel', '15'],
      ['protocol', 'x86_64-abi'],
      ['feature-persistent', '0'],
    ],
    'never ring-page-order, whose presence alone makes Linux look for ring-ref0',
  );
  t.end();
});

void t.test('our keys: four pages and one queue', (t) => {
  t.same(
    encodeFrontendKeys({
      abi: BlkifAbi.ARM,
      isPersistent: true,
      queues: [{ ringGrefs: [8, 9, 4294967295, 11], port: 15 }],
    }),
    [
      ['ring-page-order', '2'],
      ['ring-ref0', '8'],
      ['ring-ref1', '9'],
      ['ring-ref2', '4294967295'],
      ['ring-ref3', '11'],
      ['event-channel', '15'],
      ['protocol', 'arm-abi'],
      ['feature-persistent', '1'],
    ],
    'never ring-ref beside the numbered ones',
  );
  t.end();
});

void t.test('our keys: two queues, of one page and of two', (t) => {
  const encode = (first: number[], second: number[]): [string, string][] =>
    encodeFrontendKeys({
      abi: BlkifAbi.X86_64,
      isPersistent: false,
      queues: [
        { ringGrefs: first, port: 1 },
        { ringGrefs: second, port: 2 },
      ],
    });
  t.same(encode([5], [6]), [
    ['multi-queue-num-queues', '2'],
    ['queue-0/ring-ref', '5'],
    ['queue-0/event-channel', '1'],
    ['queue-1/ring-ref', '6'],
    ['queue-1/event-channel', '2'],
    ['protocol', 'x86_64-abi'],
    ['feature-persistent', '0'],
  ]);
  t.same(encode([5, 7], [6, 8]), [
    ['multi-queue-num-queues', '2'],
    ['ring-page-order', '1'],
    ['queue-0/ring-ref0', '5'],
    ['queue-0/ring-ref1', '7'],
    ['queue-0/event-channel', '1'],
    ['queue-1/ring-ref0', '6'],
    ['queue-1/ring-ref1', '8'],
    ['queue-1/event-channel', '2'],
    ['protocol', 'x86_64-abi'],
    ['feature-persistent', '0'],
  ]);
  t.throws(() => encode([5], [6, 8]), RangeError);
  t.throws(() => encode([5, 6, 7], [6, 8, 9]), RangeError);
  t.throws(
    () => encodeFrontendKeys({ abi: BlkifAbi.ARM, isPersistent: false, queues: [] }),
    RangeError,
  );
  t.end();
});

void t.test('which names belong to an earlier connection', (t) => {
  const stale = [
    'ring-ref',
    'ring-ref0',
    'ring-ref15',
    'ring-page-order',
    'num-ring-pages',
    'event-channel',
    'multi-queue-num-queues',
    'queue-0',
    'queue-12',
  ];
  const kept = [
    'state',
    'backend',
    'backend-id',
    'protocol',
    'feature-persistent',
    'virtual-device',
    'device-type',
    'trusted',
    'ring-refs',
    'queue-',
    'queue-a',
    'my-ring-ref',
  ];
  t.same(stale.filter(isConnectionKey), stale);
  t.same(kept.filter(isConnectionKey), []);
  t.end();
});

void t.test("the front end's keys as a back end reads them", (t) => {
  t.same(parseFrontendKeys(keys({})), {
    abi: BlkifAbi.X86_32,
    isPersistent: false,
    queueCount: 1,
    ringPageOrder: undefined,
  });
  t.same(
    parseFrontendKeys(
      keys({
        protocol: 'x86_64-abi',
        'feature-persistent': '1',
        'multi-queue-num-queues': '4',
        'ring-page-order': '0',
      }),
    ),
    { abi: BlkifAbi.X86_64, isPersistent: true, queueCount: 4, ringPageOrder: 0 },
  );
  t.throws(() => parseFrontendKeys(keys({ protocol: 'sparc-abi' })), /protocol is "sparc-abi"/);
  t.end();
});

void t.test('states', (t) => {
  for (const [name, state] of Object.entries(XenbusState)) {
    t.equal(xenbusStateName(state), name);
    t.equal(parseXenbusState(String(state)), state);
  }
  for (const value of [undefined, '', '9', '04', '4 ', '-1', 'x', '4\n', '٤']) {
    t.equal(parseXenbusState(value), XenbusState.Unknown, JSON.stringify(value));
  }
  t.equal(formatXenbusState(XenbusState.InitWait), '2 (InitWait)');
  t.end();
});
