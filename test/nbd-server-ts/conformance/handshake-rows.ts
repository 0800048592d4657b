// The conformance table, first part: rules of the NBD protocol document for servers during the
// handshake. `handshakeRows(target)` fills in the names and the size of the export under test.

import { hexNumber, hexText } from '../support/hex.ts';
import type { Row, Target } from './dialogue.ts';

const OPT = '49484156454f5054';
const ACK = 1;
const UNSUP = 0x80000001;
const POLICY = 0x80000002;
const INVALID = 0x80000003;
const UNKNOWN = 0x80000006;
const TOO_BIG = 0x80000009;
const EXT_REQD = 0x8000000a;

/** The greeting: magics, FIXED_NEWSTYLE and perhaps NO_ZEROES. Then the flags of the client. */
const GREETING = { expect: '4e42444d41474943 49484156454f5054 00 ..' } as const;
const FLAGS = { send: '00000003' } as const;

function option(number: number, data = ''): { send: string } {
  const lengthBytes =
    data.replaceAll(/'([^']*)'/g, (_m, text: string) => hexText(text)).replaceAll(/\s/g, '')
      .length / 2;
  return { send: `${OPT} ${hexNumber(number, 4)} ${hexNumber(lengthBytes, 4)} ${data}` };
}

function named(name: string): string {
  const bytes = Buffer.from(name);
  return `${hexNumber(bytes.length, 4)} ${bytes.length === 0 ? '' : bytes.toString('hex')}`;
}

export function handshakeRows(target: Target): Row[] {
  const name = named(target.exportName);
  const rawName = Buffer.from(target.exportName).toString('hex');
  const size = hexNumber(target.sizeBytes, 8);
  const exportInfo = `00000003 0000 ${size} ....`;
  const go = option(7, `${name} 0000`);
  const goes = { option: 7, ends: [ACK], among: [exportInfo] } as const;
  const unknown = named(target.unknownName ?? '');
  const start = [GREETING, FLAGS];
  return [
    {
      section: 'Newstyle negotiation',
      level: 'MUST',
      rule: 'the server greets with NBDMAGIC, IHAVEOPT and FIXED_NEWSTYLE, and no unknown flag',
      steps: [{ expect: '4e42444d41474943 49484156454f5054 000.' }],
    },
    {
      section: 'Client flags',
      level: 'MUST',
      rule: 'an unknown client flag drops the connection',
      steps: [GREETING, { send: '00000007' }, { closes: true }],
    },
    {
      section: 'NBD_OPT_GO',
      level: 'MUST',
      rule: 'GO for an export is answered by INFO_EXPORT and ACK, and transmission begins',
      steps: [
        ...start,
        go,
        goes,
        { send: '25609513 0000 0000 0000000000000001 0000000000000000 00000200' },
        { reply: '0000000000000001', errno: [0], dataBytes: 512, form: 'simple' },
      ],
    },
    {
      section: 'NBD_OPT_GO',
      level: 'MUST',
      rule: 'a request that came in one piece with GO is answered',
      steps: [
        ...start,
        {
          send: `${go.send} 25609513 0000 0000 0000000000000001 0000000000000000 00000200`,
        },
        goes,
        { reply: '0000000000000001', errno: [0], dataBytes: 512 },
      ],
    },
    {
      section: 'NBD_OPT_INFO',
      level: 'MUST',
      rule: 'INFO is answered like GO, and negotiation goes on',
      steps: [
        ...start,
        option(6, `${name} 0000`),
        { option: 6, ends: [ACK], among: [exportInfo] },
        go,
        goes,
      ],
    },
    {
      section: 'NBD_OPT_INFO',
      level: 'MUST',
      rule: 'an unknown information request is passed over',
      steps: [
        ...start,
        option(6, `${name} 0001 7777`),
        { option: 6, ends: [ACK], among: [exportInfo] },
      ],
    },
    {
      section: 'NBD_OPT_GO',
      level: 'MUST',
      rule: 'an export that does not exist is ERR_UNKNOWN, and negotiation goes on',
      needs: ['unknownName'],
      steps: [...start, option(7, `${unknown} 0000`), { option: 7, ends: [UNKNOWN] }, go, goes],
    },
    ...[
      ['three bytes of data', '000000'],
      ['a name longer than the option', "00000005 'abc' 0000"],
      ['a name length of 0xffffffff', 'ffffffff 0000'],
      ['information requests that are not there', '00000000 0002 0000'],
      ['a byte too many', '00000000 0000 00'],
    ].map(
      ([what, data]): Row => ({
        section: 'NBD_OPT_GO',
        level: 'SHOULD',
        rule: `GO with ${what} is ERR_INVALID, and negotiation goes on`,
        steps: [...start, option(7, data), { option: 7, ends: [INVALID] }, go, goes],
      }),
    ),
    {
      section: 'NBD_OPT_EXPORT_NAME',
      level: 'MUST',
      rule: 'with NO_ZEROES the answer has 10 bytes and transmission begins',
      steps: [
        ...start,
        option(1, rawName),
        { expect: `${size} ....` },
        { send: '25609513 0000 0000 0000000000000001 0000000000000000 00000200' },
        { reply: '0000000000000001', errno: [0], dataBytes: 512 },
      ],
    },
    {
      section: 'NBD_OPT_EXPORT_NAME',
      level: 'MUST',
      rule: 'without NO_ZEROES 124 zeroes follow',
      steps: [
        GREETING,
        { send: '00000001' },
        option(1, rawName),
        { expect: `${size} .... ${'00'.repeat(124)}` },
      ],
    },
    {
      section: 'NBD_OPT_EXPORT_NAME',
      level: 'unspecified',
      rule: 'a client without FIXED_NEWSTYLE may use it',
      steps: [
        GREETING,
        { send: '00000000' },
        option(1, rawName),
        { expect: `${size} .... ${'00'.repeat(124)}` },
      ],
    },
    {
      section: 'NBD_OPT_EXPORT_NAME',
      level: 'MUST',
      rule: 'an export that does not exist drops the connection',
      needs: ['unknownName'],
      steps: [
        ...start,
        option(1, Buffer.from(target.unknownName ?? '').toString('hex')),
        { closes: true },
      ],
    },
    {
      section: 'NBD_OPT_ABORT',
      level: 'MUST',
      rule: 'ABORT is answered with ACK',
      steps: [...start, option(2), { option: 2, ends: [ACK] }, { closes: true }],
    },
    {
      section: 'NBD_OPT_LIST',
      level: 'MUST',
      rule: 'LIST ends with ACK, or with POLICY when it is switched off',
      steps: [...start, option(3), { option: 3, ends: [ACK, POLICY] }, go, goes],
    },
    {
      section: 'NBD_OPT_LIST',
      level: 'SHOULD',
      rule: 'LIST with data is ERR_INVALID, and negotiation goes on',
      steps: [...start, option(3, '00'), { option: 3, ends: [INVALID] }, go, goes],
    },
    ...[4, 99, 0x7fffffff].map(
      (number): Row => ({
        section: 'Option types',
        level: 'MUST',
        rule: `option ${number}, which nobody has, is ERR_UNSUP, and negotiation goes on`,
        steps: [...start, option(number, '00112233'), { option: number, ends: [UNSUP] }, go, goes],
      }),
    ),
    {
      section: 'Fixed newstyle negotiation',
      level: 'MUST',
      rule: 'a wrong option magic drops the connection',
      steps: [
        ...start,
        { send: `${'11'.repeat(8)} 00000003 00000000` },
        { closes: true, ignoring: true },
      ],
    },
    {
      section: 'Fixed newstyle negotiation',
      level: 'SHOULD',
      rule: 'an option that announces 100 MiB is not waited for',
      steps: [...start, { send: `${OPT} 00000003 06400000` }, { closes: true, ignoring: true }],
    },
    {
      section: 'Fixed newstyle negotiation',
      level: 'SHOULD',
      rule: 'an option of 70000 bytes is refused and read away, and negotiation goes on',
      steps: [
        ...start,
        option(99, '55'.repeat(70000)),
        { option: 99, ends: [UNSUP, TOO_BIG] },
        go,
        goes,
      ],
    },
    {
      section: 'TLS support, NOTLS',
      level: 'MUST',
      rule: 'STARTTLS without TLS is POLICY or UNSUP, and negotiation goes on',
      steps: [...start, option(5), { option: 5, ends: [POLICY, UNSUP] }, go, goes],
    },
    {
      section: 'NBD_OPT_STRUCTURED_REPLY',
      level: 'MUST',
      rule: 'a second request is ACK or ERR_INVALID, and chunks are used',
      needs: ['structured'],
      steps: [
        option(8),
        { option: 8, ends: [ACK, INVALID] },
        go,
        goes,
        { send: '25609513 0000 0000 0000000000000001 0000000000000000 00000200' },
        { reply: '0000000000000001', errno: [0], dataBytes: 512, form: 'structured' },
      ],
    },
    {
      section: 'NBD_OPT_STRUCTURED_REPLY',
      level: 'SHOULD',
      rule: 'with data it is ERR_INVALID',
      steps: [...start, option(8, '00'), { option: 8, ends: [INVALID, UNSUP] }],
    },
    {
      section: 'NBD_OPT_EXTENDED_HEADERS',
      level: 'MUST',
      rule: 'once extended headers are agreed on, STRUCTURED_REPLY is EXT_HEADER_REQD',
      needs: ['extended'],
      steps: [option(8), { option: 8, ends: [EXT_REQD] }, go, goes],
    },
    ...[9, 10].flatMap((number): Row[] => [
      {
        section: 'NBD_OPT_SET_META_CONTEXT',
        level: number === 9 ? 'unspecified' : 'SHOULD',
        rule: `option ${number} before structured replies is ${number === 9 ? 'answered' : 'ERR_INVALID'}`,
        steps: [
          ...start,
          option(number, `${name} 00000000`),
          { option: number, ends: [INVALID, UNSUP, EXT_REQD, ...(number === 9 ? [ACK] : [])] },
          go,
          goes,
        ],
      },
      {
        section: 'NBD_OPT_SET_META_CONTEXT',
        level: 'SHOULD',
        rule: `option ${number} with a query that is cut off is ERR_INVALID`,
        needs: ['structured'],
        steps: [
          option(number, `${name} 00000001 00000010 'base:'`),
          { option: number, ends: [INVALID, UNSUP] },
          go,
          goes,
        ],
      },
      {
        section: 'NBD_OPT_SET_META_CONTEXT',
        level: 'MUST',
        rule: `option ${number} passes over a namespace it does not know`,
        needs: ['structured'],
        steps: [
          option(number, `${name} 00000001 00000007 'x-no:xx'`),
          { option: number, ends: [ACK, UNSUP] },
          go,
          goes,
        ],
      },
    ]),
  ];
}
