// Goal: TLS policy and shutdown hold for every option, and nothing agreed in the clear survives
// TLS. Method: dialogues of hex; where TLS would begin the test just says that it did.

import { Negotiation } from 'nbd-server-ts/protocol';
import t from 'tap';
import {
  catalogOf,
  disk,
  ERR_INVALID,
  ERR_POLICY,
  ERR_SHUTDOWN,
  ERR_TLS_REQD,
  FLAGS,
  feed,
  GO,
  GO_ACK,
  GO_EXPORT,
  NO_DATA,
  OPT,
  type Outcome,
  plain,
  play,
  REP,
  refusal,
  secret,
} from './support/dialogue.ts';
import { hex, hexNumber, hexText, toHex } from './support/hex.ts';

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
