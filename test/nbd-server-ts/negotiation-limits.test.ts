// Goal: nothing a client sends gets the handshake out of step, over its limits, or to throw.
// Method: malformed options followed by good ones; each limit at n-1, n and n+1.

import { Negotiation } from 'nbd-server-ts/protocol';
import t from 'tap';
import {
  catalogOf,
  disk,
  ERR_TOO_BIG,
  ERR_UNSUP,
  FLAGS,
  feed,
  GO,
  GO_ACK,
  GO_EXPORT,
  OPT,
  plain,
  play,
  REP,
  refusal,
} from './support/dialogue.ts';
import { hex, hexFill, hexNumber, hexText } from './support/hex.ts';

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
