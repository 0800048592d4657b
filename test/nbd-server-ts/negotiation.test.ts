// Goal: the handshake answers byte for byte as the specification draws it, however its input is cut,
// and stays within its limits. Method: dialogues of hex typed by hand; each is fed whole, byte by
// byte and cut at random, and has to give the same answers.

import {
  createExportInfo,
  type ExportCatalog,
  type ExportEntry,
  Negotiation,
  type NegotiationOptions,
  type NegotiationStep,
} from 'nbd-server-ts/protocol';
import t, { type Test } from 'tap';
import { hex, hexFill, hexNumber, hexText, toHex } from './support/hex.ts';
import { cutRandomly, freshSeed, Random } from './support/random.ts';

const GIB = 1024 ** 3;

const disk: ExportEntry = {
  ...createExportInfo({
    sizeBytes: GIB,
    canFlush: true,
    canFua: true,
    canTrim: true,
    canWriteZeroes: true,
  }),
  name: 'disk',
  description: 'a disk',
};
const plain: ExportEntry = {
  ...createExportInfo({ sizeBytes: 512 }),
  name: 'plain',
  description: '',
};
const secret: ExportEntry = { ...plain, name: 'secret', isTlsRequired: true };

function catalogOf(...entries: ExportEntry[]): ExportCatalog {
  return {
    find: (name) => (name === '' ? entries[0] : entries.find((entry) => entry.name === name)),
    list: () => entries,
  };
}

interface Outcome {
  readonly sent: string;
  readonly next: string;
  readonly reason: string;
  readonly leftBytes: number;
  readonly negotiation: Negotiation;
}

/** Feeds pieces until the handshake ends or the pieces are used up. */
function feed(negotiation: Negotiation, pieces: readonly Uint8Array[]): Outcome {
  let sent = '';
  let last: NegotiationStep | undefined;
  const reasons: string[] = [];
  let leftBytes = 0;
  for (const piece of pieces) {
    if (last !== undefined && last.next !== 'more') {
      leftBytes += piece.length;
      continue;
    }
    last = negotiation.receive(piece);
    if (last.send !== undefined) sent += toHex(last.send);
    if (last.reason !== undefined) reasons.push(last.reason);
    leftBytes += piece.length - last.consumed;
  }
  return { sent, next: last?.next ?? 'more', reason: reasons.join('; '), leftBytes, negotiation };
}

interface Dialogue {
  readonly client: string;
  readonly server: string;
  readonly next?: string;
  readonly reason?: RegExp;
  readonly leftBytes?: number;
  readonly catalog?: ExportCatalog;
  readonly options?: NegotiationOptions;
}

function play(t: Test, title: string, dialogue: Dialogue): Outcome {
  const bytes = hex(dialogue.client);
  const start = () => new Negotiation(dialogue.catalog ?? catalogOf(disk, plain), dialogue.options);
  const seed = freshSeed();
  const runs: readonly [string, Uint8Array[]][] = [
    ['whole', [bytes]],
    ['byte by byte', Array.from(bytes, (byte) => Uint8Array.of(byte))],
    [`cut by seed ${seed}`, cutRandomly(bytes, new Random(seed))],
  ];
  let first: Outcome | undefined;
  for (const [how, pieces] of runs) {
    const outcome = feed(start(), pieces);
    first ??= outcome;
    t.equal(outcome.sent, toHex(hex(dialogue.server)), `${title}, ${how}: what is sent`);
    t.equal(outcome.next, dialogue.next ?? 'more', `${title}, ${how}: what is next`);
    t.equal(outcome.leftBytes, dialogue.leftBytes ?? 0, `${title}, ${how}: what is left over`);
    if (dialogue.reason === undefined) t.equal(outcome.reason, '', `${title}, ${how}: no reason`);
    else t.match(outcome.reason, dialogue.reason, `${title}, ${how}: the reason`);
  }
  if (first === undefined) throw new Error('A dialogue is played three times.');
  return first;
}

const FLAGS = '00000003';
const OPT = '49484156454f5054';
const REP = '0003e889045565a9';
/** GO for the default export, no information asked for. */
const GO = `${OPT} 00000007 00000006 00000000 0000`;
const GO_EXPORT = `${REP} 00000007 00000003 0000000c 0000 0000000040000000 006d`;
const GO_ACK = `${REP} 00000007 00000001 00000000`;

/** An error reply with its text. */
function refusal(option: number, type: string, text: string): string {
  return `${REP} ${hexNumber(option, 4)} ${type} ${hexNumber(text.length, 4)} ${hexText(text)}`;
}
const ERR_UNSUP = '80000001';
const ERR_POLICY = '80000002';
const ERR_INVALID = '80000003';
const ERR_TLS_REQD = '80000005';
const ERR_UNKNOWN = '80000006';
const ERR_SHUTDOWN = '80000007';
const ERR_TOO_BIG = '80000009';
const MALFORMED = 'The lengths or the name are malformed.';
const NO_DATA = 'This option takes no data.';

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
  const longest = 'x'.repeat(4096);
  play(t, 'a name of 4096 bytes', {
    client: `00000003 ${OPT} 00000001 00001000 ${hexText(longest)}`,
    server: '0000000000000200 0001',
    next: 'transmission',
    catalog: catalogOf({ ...plain, name: longest }),
  });
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

void t.test('options that are not supported, then a good one', async (t) => {
  const unsupported = 'This option is not supported.';
  for (const option of [0, 4, 8, 9, 10, 11, 12, 0x7fffffff, 0xffffffff]) {
    for (const data of ['00000000', '00000003 010203']) {
      play(t, `option ${option}`, {
        client: `${FLAGS} ${OPT} ${hexNumber(option, 4)} ${data} ${GO}`,
        server: `${refusal(option, ERR_UNSUP, unsupported)} ${GO_EXPORT} ${GO_ACK}`,
        next: 'transmission',
      });
    }
  }
});

void t.test('a stream that is out of step is dropped', async (t) => {
  const rows: readonly (readonly [string, string, RegExp])[] = [
    ['unknown client flag', '00000007', /^unknown client flags 0x7$/],
    ['unknown client flag 31', '80000003', /^unknown client flags 0x80000003$/],
    ['wrong option magic', `${FLAGS} 49484156454f5055 00000002 00000000`, /wrong magic/],
    ['reply magic as option magic', `${FLAGS} ${REP} 00000002 00000000`, /wrong magic/],
    ['LIST without fixed newstyle', `00000000 ${OPT} 00000003 00000000`, /^NBD_OPT_LIST without/],
    ['100 MiB of data', `${FLAGS} ${OPT} 00000003 06400000`, /^NBD_OPT_LIST with 104857600 bytes/],
    ['4 GiB of data', `${FLAGS} ${OPT} 00000063 ffffffff`, /^NBD_OPT_\?\(99\) with 4294967295/],
  ];
  for (const [title, client, reason] of rows) {
    play(t, title, { client, server: '', next: 'close', reason });
  }
});

void t.test('option size at the limits', async (t) => {
  const options = { limits: { optionBytes: 100, skippedOptionBytes: 200 } };
  const tooBig = refusal(99, ERR_TOO_BIG, 'The data of this option is longer than 100 bytes.');
  const rows: readonly (readonly [number, string])[] = [
    [99, refusal(99, ERR_UNSUP, 'This option is not supported.')],
    [100, refusal(99, ERR_UNSUP, 'This option is not supported.')],
    [101, tooBig],
    [200, tooBig],
  ];
  for (const [lengthBytes, server] of rows) {
    play(t, `${lengthBytes} bytes`, {
      client: `${FLAGS} ${OPT} 00000063 ${hexNumber(lengthBytes, 4)} ${hexFill('55', lengthBytes)} ${GO}`,
      server: `${server} ${GO_EXPORT} ${GO_ACK}`,
      next: 'transmission',
      options,
      ...(lengthBytes > 100 ? { reason: /longer than 100 bytes/ } : {}),
    });
  }
  play(t, '201 bytes', {
    client: `${FLAGS} ${OPT} 00000063 000000c9`,
    server: '',
    next: 'close',
    reason: /with 201 bytes of data/,
    options,
  });
});

void t.test('option count at the limit', async (t) => {
  const one = `${OPT} 00000063 00000000 `;
  const answer = `${refusal(99, ERR_UNSUP, 'This option is not supported.')} `;
  for (const count of [31, 32]) {
    play(t, `${count} options`, {
      client: FLAGS + one.repeat(count),
      server: answer.repeat(count),
    });
  }
  play(t, '33 options', {
    client: FLAGS + one.repeat(33),
    server: answer.repeat(32),
    next: 'close',
    reason: /^more than 32 options$/,
  });
});

void t.test('shutdown', async (t) => {
  const shutDown = (client: string): Outcome => {
    const negotiation = new Negotiation(catalogOf(disk));
    negotiation.shutDown();
    return feed(negotiation, [hex(client)]);
  };
  const text = 'The server is shutting down.';
  for (const option of [3, 5, 6, 7, 8, 99]) {
    const outcome = shutDown(`${FLAGS} ${OPT} ${hexNumber(option, 4)} 00000006 00000000 0000`);
    t.equal(outcome.sent, toHex(hex(refusal(option, ERR_SHUTDOWN, text))), `option ${option}`);
    t.equal(outcome.next, 'more');
  }
  t.equal(shutDown(`${FLAGS} ${OPT} 00000001 00000000`).next, 'close', 'EXPORT_NAME');
  t.equal(
    shutDown(`${FLAGS} ${OPT} 00000002 00000000`).sent,
    toHex(hex(`${REP} 00000002 00000001 00000000`)),
    'ABORT',
  );
});

void t.test('TLS policy', async (t) => {
  const starttls = `${OPT} 00000005 00000000`;
  const ack = `${REP} 00000005 00000001 00000000`;
  play(t, 'off', {
    client: `${FLAGS} ${starttls}`,
    server: refusal(5, ERR_POLICY, 'TLS is switched off.'),
    reason: /TLS is switched off/,
  });
  for (const tls of ['allow', 'require'] as const) {
    play(t, `${tls}, data with STARTTLS`, {
      client: `${FLAGS} ${OPT} 00000005 00000001 00`,
      server: refusal(5, ERR_INVALID, NO_DATA),
      reason: /takes no data/,
      options: { tls },
    });
    const outcome = play(t, tls, {
      client: `${FLAGS} ${starttls}`,
      server: ack,
      next: 'startTls',
      options: { tls },
    });
    outcome.negotiation.tlsEstablished();
    const after = feed(outcome.negotiation, [hex(`${starttls} ${GO}`)]);
    const text = 'TLS is already in use.';
    t.equal(after.sent, toHex(hex(`${refusal(5, ERR_INVALID, text)} ${GO_EXPORT} ${GO_ACK}`)));
    t.equal(after.next, 'transmission');
    t.equal(outcome.negotiation.result?.isTls, true);
  }
  for (const option of [3, 6, 7, 8, 9, 10, 11, 99]) {
    play(t, `required, option ${option} before it`, {
      client: `${FLAGS} ${OPT} ${hexNumber(option, 4)} 00000000`,
      server: refusal(option, ERR_TLS_REQD, 'This server needs TLS first.'),
      reason: /needs TLS first/,
      options: { tls: 'require' },
    });
  }
  play(t, 'required, EXPORT_NAME before it', {
    client: `${FLAGS} ${OPT} 00000001 00000000`,
    server: '',
    next: 'close',
    reason: /before TLS/,
    options: { tls: 'require' },
  });
  play(t, 'required, ABORT before it', {
    client: `${FLAGS} ${OPT} 00000002 00000000`,
    server: `${REP} 00000002 00000001 00000000`,
    next: 'close',
    options: { tls: 'require' },
  });
});

void t.test('an export that needs TLS', async (t) => {
  const options = { tls: 'allow' } as const;
  const catalog = catalogOf(plain, secret);
  const go = `${OPT} 00000007 0000000c 00000006 'secret' 0000`;
  play(t, 'GO in the clear', {
    client: `${FLAGS} ${go}`,
    server: refusal(7, ERR_TLS_REQD, 'This export needs TLS.'),
    reason: /needs TLS/,
    options,
    catalog,
  });
  play(t, 'EXPORT_NAME in the clear', {
    client: `${FLAGS} ${OPT} 00000001 00000006 'secret'`,
    server: '',
    next: 'close',
    reason: /needs TLS/,
    options,
    catalog,
  });
  const negotiation = new Negotiation(catalog, options);
  feed(negotiation, [hex(`${FLAGS} ${OPT} 00000005 00000000`)]);
  negotiation.tlsEstablished();
  const list = feed(negotiation, [hex(`${OPT} 00000003 00000000`)]);
  t.match(list.sent, hexText('secret'), 'LIST through TLS shows it');
  t.equal(feed(negotiation, [hex(go)]).next, 'transmission');
});

void t.test('bytes behind STARTTLS in the clear drop the connection', async (t) => {
  const negotiation = new Negotiation(catalogOf(disk), { tls: 'allow' });
  const step = negotiation.receive(hex(`${FLAGS} ${OPT} 00000005 00000000 49`));
  t.equal(step.next, 'close');
  t.equal(step.send, undefined, 'not even the ACK is sent');
  t.match(step.reason, /in the clear behind NBD_OPT_STARTTLS/);
});

void t.test('what was agreed in the clear is forgotten when TLS starts', async (t) => {
  for (const [option, offer] of [
    [8, { structuredReplies: true }],
    [11, { extendedHeaders: true }],
  ] as const) {
    const negotiation = new Negotiation(catalogOf(disk), { tls: 'allow', ...offer });
    const ask = `${OPT} ${hexNumber(option, 4)} 00000000`;
    const ack = toHex(hex(`${REP} ${hexNumber(option, 4)} 00000001 00000000`));
    t.equal(feed(negotiation, [hex(`${FLAGS} ${ask}`)]).sent, ack);
    feed(negotiation, [hex(`${OPT} 00000005 00000000`)]);
    negotiation.tlsEstablished();
    feed(negotiation, [hex(GO)]);
    t.same(negotiation.result?.agreement, {
      isStructured: false,
      isExtended: false,
      hasMetaContexts: false,
    });
  }
});

void t.test('what a client sends cannot forge a log line', async (t) => {
  const name = hexText('a\n"b\u001b[2J'.padEnd(300, 'x'));
  const outcome = feed(new Negotiation(catalogOf(disk)), [
    hex(`${FLAGS} ${OPT} 00000007 00000132 0000012c ${name} 0000`),
  ]);
  t.notMatch(outcome.reason, /\p{Cc}/u);
  t.ok(outcome.reason.length < 200, outcome.reason);
});

void t.test('a disconnect after any byte leaves nothing to throw', async (t) => {
  const bytes = hex(`${FLAGS} ${OPT} 00000003 00000000 ${GO}`);
  for (let count = 0; count < bytes.length; count += 1) {
    const outcome = feed(new Negotiation(catalogOf(disk, plain)), [bytes.subarray(0, count)]);
    t.equal(outcome.next, 'more', `${count} bytes`);
  }
});

void t.test('calls out of order are a mistake of the caller', async (t) => {
  const negotiation = new Negotiation(catalogOf(disk));
  t.throws(() => negotiation.tlsEstablished(), /without a STARTTLS/);
  negotiation.receive(hex('ffffffff'));
  t.throws(() => negotiation.receive(hex('00')), /no bytes after its end/);
});
