// Goal: the handshake answers byte for byte as the specification draws it, however its input is
// cut. Method: dialogues of hex typed by hand; each is fed whole, byte by byte and cut at random.

import { Negotiation } from 'nbd-server-ts/protocol';
import t from 'tap';
import {
  catalogOf,
  disk,
  ERR_INVALID,
  ERR_POLICY,
  ERR_UNKNOWN,
  FLAGS,
  GO,
  GO_ACK,
  GO_EXPORT,
  MALFORMED,
  NO_DATA,
  OPT,
  plain,
  play,
  REP,
  refusal,
  secret,
} from './support/dialogue.ts';
import { hexFill, hexNumber, hexText, toHex } from './support/hex.ts';

void t.test('the greeting', async (t) => {
  const greeting = new Negotiation(catalogOf(disk)).greeting();
  t.equal(toHex(greeting), '4e42444d4147494349484156454f50540003');
});

void t.test('GO for the default export', async (t) => {
  const { negotiation } = play(t, 'GO', {
    client: `${FLAGS} ${GO}`,
    server: `${GO_EXPORT} ${GO_ACK}`,
    next: 'transmission',
  });
  t.equal(negotiation.result?.export, disk);
  t.equal(negotiation.result?.transmissionFlags, 0x006d);
  t.equal(negotiation.result?.isTls, false);
  t.same(negotiation.result?.agreement, {
    isStructured: false,
    isExtended: false,
    hasMetaContexts: false,
  });
});

void t.test('a request that came with GO is left for transmission', async (t) => {
  play(t, 'GO and READ', {
    client: `${FLAGS} ${GO} 25609513 0000 0000 0000000000000001 0000000000000000 00001000`,
    server: `${GO_EXPORT} ${GO_ACK}`,
    next: 'transmission',
    leftBytes: 28,
  });
});

void t.test('INFO then GO with everything asked for, twice, and an unknown kind', async (t) => {
  const data = `0000001a 00000004 'disk' 0008 0003 0001 0002 0000 0001 0003 0002 0099`;
  const infos = (option: string) =>
    [
      `${REP} ${option} 00000003 00000006 0001 'disk'`,
      `${REP} ${option} 00000003 00000008 0002 'a disk'`,
      `${REP} ${option} 00000003 0000000e 0003 00000001 00001000 02000000`,
      `${REP} ${option} 00000003 0000000c 0000 0000000040000000 006d`,
      `${REP} ${option} 00000001 00000000`,
    ].join(' ');
  play(t, 'INFO and GO', {
    client: `${FLAGS} ${OPT} 00000006 ${data} ${OPT} 00000007 ${data}`,
    server: `${infos('00000006')} ${infos('00000007')}`,
    next: 'transmission',
  });
});

void t.test('the canonical name is told when the default export was asked for', async (t) => {
  play(t, 'NAME', {
    client: `${FLAGS} ${OPT} 00000006 00000008 00000000 0001 0001`,
    server: `${REP} 00000006 00000003 00000006 0001 'disk'
      ${REP} 00000006 00000003 0000000c 0000 0000000040000000 006d
      ${REP} 00000006 00000001 00000000`,
  });
});

void t.test('an empty description is not sent', async (t) => {
  play(t, 'DESCRIPTION', {
    client: `${FLAGS} ${OPT} 00000006 0000000d 00000005 'plain' 0001 0002`,
    server: `${REP} 00000006 00000003 0000000c 0000 0000000000000200 0001
      ${REP} 00000006 00000001 00000000`,
  });
});

void t.test('GO for an export that is not there, then for one that is', async (t) => {
  play(t, 'unknown export', {
    client: `${FLAGS} ${OPT} 00000007 00000009 00000003 'foo' 0000 ${GO}`,
    server: `${refusal(7, ERR_UNKNOWN, 'There is no export "foo".')} ${GO_EXPORT} ${GO_ACK}`,
    next: 'transmission',
    reason: /^NBD_OPT_GO refused: There is no export "foo"\.$/,
  });
});

void t.test(
  'malformed INFO and GO are answered INVALID and the stream stays in step',
  async (t) => {
    const rows: readonly (readonly [string, string])[] = [
      ['3 bytes of data', '00000003 000000'],
      ['no data', '00000000'],
      ['name length 0xffffffff', '00000006 ffffffff 0000'],
      ['name longer than the option', "0000000a 00000005 'disk' 0000"],
      ['no room for the count', "00000008 00000004 'disk'"],
      ['one kind announced, none there', '00000006 00000000 0001'],
      ['one byte too many', '00000007 00000000 0000 00'],
      ['half a kind', '00000007 00000000 0001 00'],
      ['count 0xffff', '00000006 00000000 ffff'],
      ['NUL in the name', '00000007 00000001 00 0000'],
      ['a name that is not UTF-8', '00000007 00000001 ff 0000'],
      ['a surrogate in UTF-8', '00000009 00000003 eda080 0000'],
      ['a name of 4097 bytes', `00001007 00001001 ${hexFill('61', 4097)} 0000`],
    ];
    for (const [title, option] of rows) {
      for (const number of [6, 7]) {
        play(t, `${title}, option ${number}`, {
          client: `${FLAGS} ${OPT} ${hexNumber(number, 4)} ${option} ${GO}`,
          server: `${refusal(number, ERR_INVALID, MALFORMED)} ${GO_EXPORT} ${GO_ACK}`,
          next: 'transmission',
          reason: /refused: The lengths or the name are malformed\.$/,
        });
      }
    }
  },
);

void t.test('EXPORT_NAME', async (t) => {
  const named = `${OPT} 00000001 00000005 'plain'`;
  const { negotiation } = play(t, 'with NO_ZEROES', {
    client: `00000003 ${named}`,
    server: '0000000000000200 0001',
    next: 'transmission',
  });
  t.equal(negotiation.result?.export, plain);
  for (const flags of ['00000000', '00000001']) {
    play(t, `flags ${flags}`, {
      client: `${flags} ${named}`,
      server: `0000000000000200 0001 ${hexFill('00', 124)}`,
      next: 'transmission',
    });
  }
  play(t, 'the default export', {
    client: `00000003 ${OPT} 00000001 00000000`,
    server: '0000000040000000 006d',
    next: 'transmission',
  });
  for (const [name, reason] of [
    ["'foo'", /"foo", which does not exist$/],
    ['666f00', /not a string/],
    ['ffffff', /not a string/],
  ] as const) {
    play(t, name, {
      client: `00000003 ${OPT} 00000001 00000003 ${name}`,
      server: '',
      next: 'close',
      reason,
    });
  }
  for (const [lengthBytes, hexLength] of [
    [4095, '00000fff'],
    [4096, '00001000'],
  ] as const) {
    const name = 'x'.repeat(lengthBytes);
    play(t, `a name of ${lengthBytes} bytes`, {
      client: `00000003 ${OPT} 00000001 ${hexLength} ${hexText(name)}`,
      server: '0000000000000200 0001',
      next: 'transmission',
      catalog: catalogOf({ ...plain, name }),
    });
  }
  play(t, 'a name of 4097 bytes drops before it is read', {
    client: `00000003 ${OPT} 00000001 00001001`,
    server: '',
    next: 'close',
    reason: /^NBD_OPT_EXPORT_NAME with a name of 4097 bytes$/,
  });
});

void t.test('LIST', async (t) => {
  const list = `${OPT} 00000003 00000000`;
  const entries = `${REP} 00000003 00000002 0000000e 00000004 'disk' 'a disk'
    ${REP} 00000003 00000002 00000009 00000005 'plain'`;
  const ack = `${REP} 00000003 00000001 00000000`;
  play(t, 'two exports', { client: `${FLAGS} ${list}`, server: `${entries} ${ack}` });
  play(t, 'none', { client: `${FLAGS} ${list}`, server: ack, catalog: catalogOf() });
  play(t, 'one that needs TLS is hidden', {
    client: `${FLAGS} ${list}`,
    server: `${entries} ${ack}`,
    catalog: catalogOf(disk, secret, plain),
  });
  play(t, 'switched off', {
    client: `${FLAGS} ${list}`,
    server: refusal(3, ERR_POLICY, 'Listing exports is switched off.'),
    reason: /switched off/,
    catalog: { find: () => undefined, list: () => undefined },
  });
  play(t, 'with data, then without', {
    client: `${FLAGS} ${OPT} 00000003 00000001 00 ${list}`,
    server: `${refusal(3, ERR_INVALID, NO_DATA)} ${entries} ${ack}`,
    reason: /NBD_OPT_LIST refused/,
  });
});

void t.test('ABORT is answered, with data or without', async (t) => {
  for (const data of ['00000000', '00000002 abcd']) {
    play(t, data, {
      client: `${FLAGS} ${OPT} 00000002 ${data}`,
      server: `${REP} 00000002 00000001 00000000`,
      next: 'close',
    });
  }
});
