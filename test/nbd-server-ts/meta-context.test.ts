// Goal: structured replies, extended headers and metadata contexts are agreed on as the
// specification says. Method: dialogues of hex typed by hand.

import type { ExportEntry } from 'nbd-server-ts/protocol';
import t from 'tap';
import {
  catalogOf,
  disk,
  ERR_INVALID,
  ERR_UNKNOWN,
  ERR_UNSUP,
  FLAGS,
  GO,
  NO_DATA,
  OPT,
  type Outcome,
  plain,
  play,
  REP,
  refusal,
} from './support/dialogue.ts';
import { hexNumber } from './support/hex.ts';

const options = { structuredReplies: true, extendedHeaders: true };
const entry: ExportEntry = { ...disk, metaContextNames: ['base:allocation', 'x-test:one'] };
const other: ExportEntry = { ...plain, metaContextNames: ['base:allocation'] };
const catalog = catalogOf(entry, other);

const STRUCTURED = `${OPT} 00000008 00000000`;
const STRUCTURED_ACK = `${REP} 00000008 00000001 00000000`;
const EXTENDED = `${OPT} 0000000b 00000000`;
const EXTENDED_ACK = `${REP} 0000000b 00000001 00000000`;
/** GO answered with SEND_DF among the flags. */
const GO_DF = `${REP} 00000007 00000003 0000000c 0000 0000000040000000 00ed
  ${REP} 00000007 00000001 00000000`;

/** LIST (9) or SET (10) with an export name and queries. */
function query(option: number, exportName: string, ...queries: string[]): string {
  let lengthBytes = 4 + exportName.length + 4;
  let data = `${hexNumber(exportName.length, 4)} '${exportName}' ${hexNumber(queries.length, 4)}`;
  for (const text of queries) {
    lengthBytes += 4 + text.length;
    data += ` ${hexNumber(text.length, 4)} '${text}'`;
  }
  return `${OPT} ${hexNumber(option, 4)} ${hexNumber(lengthBytes, 4)} ${data.replaceAll("''", '')}`;
}

function ack(option: number): string {
  return `${REP} ${hexNumber(option, 4)} 00000001 00000000`;
}

function context(option: number, id: number, name: string): string {
  const lengthBytes = 4 + name.length;
  return `${REP} ${hexNumber(option, 4)} 00000004 ${hexNumber(lengthBytes, 4)} ${hexNumber(id, 4)} '${name}'`;
}

function agreed(outcome: Outcome): unknown {
  const result = outcome.negotiation.result;
  return {
    ...result?.agreement,
    contexts: result?.metaContexts.map(({ id, name }) => `${id} ${name}`),
  };
}

void t.test('structured replies', async (t) => {
  const outcome = play(t, 'twice, then GO', {
    client: `${FLAGS} ${STRUCTURED} ${STRUCTURED} ${GO}`,
    server: `${STRUCTURED_ACK} ${STRUCTURED_ACK} ${GO_DF}`,
    next: 'transmission',
    options,
    catalog,
  });
  t.same(agreed(outcome), {
    isStructured: true,
    isExtended: false,
    hasMetaContexts: false,
    contexts: [],
  });
  play(t, 'with data', {
    client: `${FLAGS} ${OPT} 00000008 00000001 00 ${STRUCTURED}`,
    server: `${refusal(8, ERR_INVALID, NO_DATA)} ${STRUCTURED_ACK}`,
    reason: /takes no data/,
    options,
    catalog,
  });
});

void t.test('extended headers', async (t) => {
  for (const first of ['', STRUCTURED]) {
    const outcome = play(t, first === '' ? 'alone' : 'behind structured', {
      client: `${FLAGS} ${first} ${EXTENDED} ${GO}`,
      server: `${first === '' ? '' : STRUCTURED_ACK} ${EXTENDED_ACK} ${GO_DF}`,
      next: 'transmission',
      options,
      catalog,
    });
    t.same(agreed(outcome), {
      isStructured: true,
      isExtended: true,
      hasMetaContexts: false,
      contexts: [],
    });
  }
  const downgrade = 'Extended headers are in use and replace structured replies.';
  play(t, 'no way back to structured', {
    client: `${FLAGS} ${EXTENDED} ${STRUCTURED}`,
    server: `${EXTENDED_ACK} ${refusal(8, '8000000a', downgrade)}`,
    reason: /replace structured/,
    options,
    catalog,
  });
  play(t, 'twice', {
    client: `${FLAGS} ${EXTENDED} ${EXTENDED}`,
    server: `${EXTENDED_ACK} ${refusal(11, ERR_INVALID, 'Extended headers are already in use.')}`,
    reason: /already in use/,
    options,
    catalog,
  });
  play(t, 'with data', {
    client: `${FLAGS} ${OPT} 0000000b 00000002 0000`,
    server: refusal(11, ERR_INVALID, NO_DATA),
    reason: /takes no data/,
    options,
    catalog,
  });
  play(t, 'EXPORT_NAME afterwards drops', {
    client: `${FLAGS} ${EXTENDED} ${OPT} 00000001 00000000`,
    server: EXTENDED_ACK,
    next: 'close',
    reason: /EXPORT_NAME after extended headers/,
    options,
    catalog,
  });
});

void t.test('LIST_META_CONTEXT', async (t) => {
  const both = `${context(9, 0, 'base:allocation')} ${context(9, 0, 'x-test:one')}`;
  const rows: readonly (readonly [string, readonly string[], string])[] = [
    ['no query lists all', [], both],
    ['a namespace', ['base:'], context(9, 0, 'base:allocation')],
    ['a name', ['x-test:one'], context(9, 0, 'x-test:one')],
    ['twice the same', ['base:', 'base:allocation'], context(9, 0, 'base:allocation')],
    ['two namespaces', ['x-test:', 'base:'], both],
    ['an unknown namespace', ['qemu:dirty-bitmap:'], ''],
    ['an unknown name', ['base:allocations'], ''],
    ['no colon', ['base'], ''],
    ['nothing at all', [''], ''],
  ];
  for (const [title, queries, contexts] of rows) {
    play(t, title, {
      client: `${FLAGS} ${STRUCTURED} ${query(9, '', ...queries)}`,
      server: `${STRUCTURED_ACK} ${contexts} ${ack(9)}`,
      options,
      catalog,
    });
  }
});

void t.test('SET_META_CONTEXT', async (t) => {
  const first = context(10, 1, 'base:allocation');
  const rows: readonly (readonly [string, string, string, readonly string[]])[] = [
    [
      'a name, for the default export',
      query(10, '', 'base:allocation'),
      `${first} ${ack(10)}`,
      ['1 base:allocation'],
    ],
    [
      'two names, by name',
      query(10, 'disk', 'x-test:one', 'base:allocation'),
      `${first} ${context(10, 2, 'x-test:one')} ${ack(10)}`,
      ['1 base:allocation', '2 x-test:one'],
    ],
    ['a wildcard chooses nothing', query(10, '', 'base:'), ack(10), []],
    ['no query chooses none', query(10, ''), ack(10), []],
    [
      'the unknown is passed over',
      query(10, '', 'qemu:x', 'base:allocation'),
      `${first} ${ack(10)}`,
      ['1 base:allocation'],
    ],
    [
      'the second replaces the first',
      `${query(10, '', 'base:allocation')} ${query(10, '', 'x-test:one')}`,
      `${first} ${ack(10)} ${context(10, 1, 'x-test:one')} ${ack(10)}`,
      ['1 x-test:one'],
    ],
    [
      'a choice for another export is void',
      query(10, 'plain', 'base:allocation'),
      `${first} ${ack(10)}`,
      [],
    ],
  ];
  for (const [title, client, server, contexts] of rows) {
    const outcome = play(t, title, {
      client: `${FLAGS} ${STRUCTURED} ${client} ${GO}`,
      server: `${STRUCTURED_ACK} ${server} ${GO_DF}`,
      next: 'transmission',
      options,
      catalog,
    });
    t.same(
      agreed(outcome),
      { isStructured: true, isExtended: false, hasMetaContexts: contexts.length > 0, contexts },
      title,
    );
  }
  const outcome = play(t, 'a refused SET leaves no earlier choice standing', {
    client: `${FLAGS} ${STRUCTURED} ${query(10, '', 'base:allocation')} ${query(10, 'foo')} ${GO}`,
    server: `${STRUCTURED_ACK} ${first} ${ack(10)}
      ${refusal(10, ERR_UNKNOWN, 'There is no export "foo".')} ${GO_DF}`,
    next: 'transmission',
    reason: /no export "foo"/,
    options,
    catalog,
  });
  t.match(agreed(outcome), { hasMetaContexts: false });
});

void t.test('LIST and SET that are refused', async (t) => {
  const unstructured = 'Structured replies have to be agreed on first.';
  const malformed = 'The lengths or the strings are malformed.';
  const rows: readonly (readonly [string, string])[] = [
    ['no data', '00000000'],
    ['name length 0xffffffff', '00000008 ffffffff 00000000'],
    ['no count', '00000004 00000000'],
    ['a query announced and not there', '00000008 00000000 00000001'],
    ['0xffffffff queries', '00000008 00000000 ffffffff'],
    ['query length 0xffffffff', '0000000c 00000000 00000001 ffffffff'],
    ['a query one byte short', "0000000e 00000000 00000001 00000003 'ba'"],
    ['one byte too many', '00000009 00000000 00000000 00'],
    ['a NUL in a query', '0000000d 00000000 00000001 00000001 00'],
    ['a query that is not UTF-8', '0000000d 00000000 00000001 00000001 c0'],
  ];
  for (const option of [9, 10]) {
    const header = `${OPT} ${hexNumber(option, 4)}`;
    play(t, `option ${option} before structured replies`, {
      client: `${FLAGS} ${query(option, '')}`,
      server: refusal(option, ERR_INVALID, unstructured),
      reason: /agreed on first/,
      options,
      catalog,
    });
    play(t, `option ${option}, not offered`, {
      client: `${FLAGS} ${query(option, '')}`,
      server: refusal(option, ERR_UNSUP, 'This option is not supported.'),
      catalog,
    });
    for (const [title, data] of rows) {
      play(t, `option ${option}, ${title}`, {
        client: `${FLAGS} ${STRUCTURED} ${header} ${data} ${query(option, '')}`,
        server: `${STRUCTURED_ACK} ${refusal(option, ERR_INVALID, malformed)}
          ${option === 9 ? `${context(9, 0, 'base:allocation')} ${context(9, 0, 'x-test:one')}` : ''}
          ${ack(option)}`,
        reason: /strings are malformed/,
        options,
        catalog,
      });
    }
  }
});
