// The conformance table, second part: rules of the NBD protocol document for servers during
// transmission. The rows write to the export: its bytes are not what they were afterwards.

import type { Row, Target } from './dialogue.ts';
import {
  answer,
  BLOCK_STATUS,
  COOKIE,
  DISC,
  EINVAL,
  ENOSPC,
  ENOTSUP,
  EOVERFLOW,
  EPERM,
  FLUSH,
  inStep,
  READ,
  request,
  row,
  TRIM,
  WRITE,
  WRITE_ZEROES,
} from './transmission-steps.ts';

export function transmissionRows({ sizeBytes }: Target): Row[] {
  const end = sizeBytes;
  const ab = "'ab'";
  return [
    row(
      'NBD_CMD_WRITE',
      'MUST',
      'what was written is read',
      inStep([
        request({ command: WRITE, offset: 4096, length: 4, data: 'deadbeef' }),
        answer([0]),
        request({ command: READ, offset: 4095, length: 6 }),
        answer([0], { data: '..deadbeef..' }),
      ]),
    ),
    row(
      'NBD_CMD_READ',
      'MUST',
      'the last byte can be read',
      inStep([
        request({ command: READ, offset: end - 1, length: 1 }),
        answer([0], { dataBytes: 1 }),
      ]),
    ),
    row('NBD_CMD_READ', 'MUST', 'without structured replies the simple form is used', [
      request({ command: READ, length: 16 }),
      answer([0], { dataBytes: 16, form: 'simple' }),
    ]),
    row(
      'NBD_CMD_READ',
      'SHOULD',
      'past the end it is EINVAL, without data',
      inStep([request({ command: READ, offset: end - 1, length: 2 }), answer([EINVAL])]),
    ),
    row(
      'NBD_CMD_READ',
      'SHOULD',
      'an end beyond 2^64 is EINVAL',
      inStep([request({ command: READ, offset: 2n ** 64n - 1n, length: 2 }), answer([EINVAL])]),
    ),
    row(
      'NBD_CMD_READ',
      'unspecified',
      'a length of 0 does not drop the connection',
      inStep([request({ command: READ }), answer([0, EINVAL])]),
    ),
    row(
      'NBD_CMD_WRITE',
      'SHOULD',
      'past the end it is ENOSPC',
      inStep([request({ command: WRITE, offset: end - 1, length: 2, data: ab }), answer([ENOSPC])]),
    ),
    row(
      'NBD_CMD_WRITE',
      'MUST',
      'a refused payload is not taken for a request',
      inStep([
        request({
          command: WRITE,
          flags: 0x4000,
          length: 28,
          data: `25609513 0000 0002 ${'00'.repeat(16)} 00000000`,
        }),
        answer([EINVAL]),
      ]),
    ),
    row(
      'NBD_CMD_WRITE',
      'SHOULD',
      'on a read-only export it is EPERM',
      inStep([request({ command: WRITE, length: 2, data: ab }), answer([EPERM])]),
      ['readOnly'],
    ),
    row(
      'NBD_CMD_TRIM',
      'SHOULD',
      'on a read-only export it is EPERM',
      inStep([request({ command: TRIM, length: 512 }), answer([EPERM])]),
      ['readOnly'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'SHOULD',
      'on a read-only export it is EPERM',
      inStep([request({ command: WRITE_ZEROES, length: 512 }), answer([EPERM])]),
      ['readOnly'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'MUST',
      'a range is zeroes afterwards',
      inStep([
        request({ command: WRITE, offset: 8192, length: 4, data: 'ffffffff' }),
        answer([0]),
        request({ command: WRITE_ZEROES, offset: 8193, length: 2 }),
        answer([0]),
        request({ command: READ, offset: 8192, length: 4 }),
        answer([0], { data: 'ff0000ff' }),
      ]),
      ['zeroes'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'MUST',
      'the whole export at once is no reason to drop',
      inStep([
        request({ command: WRITE_ZEROES, length: Math.min(end, 0xffffffff) }),
        answer([0, EINVAL, EOVERFLOW]),
      ]),
      ['zeroes'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'SHOULD',
      'past the end it is ENOSPC',
      inStep([request({ command: WRITE_ZEROES, offset: end - 1, length: 2 }), answer([ENOSPC])]),
      ['zeroes'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'MUST',
      'NO_HOLE is taken',
      inStep([request({ command: WRITE_ZEROES, flags: 2, length: 512 }), answer([0])]),
      ['zeroes'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'MUST',
      'FAST_ZERO succeeds or is ENOTSUP',
      inStep([request({ command: WRITE_ZEROES, flags: 16, length: 512 }), answer([0, ENOTSUP])]),
      ['zeroes', 'fastZero'],
    ),
    row(
      'NBD_CMD_WRITE_ZEROES',
      'SHOULD',
      'FAST_ZERO that was not offered is no reason to drop',
      inStep([
        request({ command: WRITE_ZEROES, flags: 16, length: 512 }),
        answer([0, EINVAL, ENOTSUP]),
      ]),
      ['zeroes'],
    ),
    row(
      'NBD_CMD_TRIM',
      'MUST',
      'it succeeds',
      inStep([request({ command: TRIM, offset: 512, length: 512 }), answer([0])]),
      ['trim'],
    ),
    row(
      'NBD_CMD_TRIM',
      'SHOULD',
      'past the end it is EINVAL',
      inStep([request({ command: TRIM, offset: end - 1, length: 2 }), answer([EINVAL])]),
      ['trim'],
    ),
    row(
      'NBD_CMD_FLUSH',
      'MUST',
      'it succeeds',
      inStep([request({ command: FLUSH }), answer([0])]),
      ['flush'],
    ),
    row(
      'NBD_CMD_FLUSH',
      'unspecified',
      'a length is no reason to drop',
      inStep([request({ command: FLUSH, length: 512 }), answer([0, EINVAL])]),
      ['flush'],
    ),
    row(
      'Command flags',
      'MUST',
      'FUA is taken on WRITE',
      inStep([request({ command: WRITE, flags: 1, length: 2, data: ab }), answer([0])]),
      ['fua'],
    ),
    ...(
      [
        [READ, 'READ'],
        [FLUSH, 'FLUSH'],
      ] as const
    ).map(([command, name]) =>
      row(
        'Command flags',
        'MUST',
        `FUA is taken on ${name}, where it means nothing`,
        inStep([
          request({ command, flags: 1, length: command === READ ? 16 : 0 }),
          answer([0], command === READ ? { dataBytes: 16 } : {}),
        ]),
        ['fua', 'flush'],
      ),
    ),
    ...[5, 6, 15].map((bit) =>
      row(
        'Error values',
        'SHOULD',
        `unknown flag ${bit} is EINVAL`,
        inStep([request({ command: READ, flags: 2 ** bit, length: 16 }), answer([EINVAL])]),
      ),
    ),
    row(
      'Error values',
      'SHOULD',
      'NO_HOLE on WRITE is EINVAL',
      inStep([request({ command: WRITE, flags: 2, length: 2, data: ab }), answer([EINVAL])]),
    ),
    row(
      'Error values',
      'SHOULD',
      'DF without structured replies is EINVAL',
      inStep([request({ command: READ, flags: 4, length: 16 }), answer([EINVAL])]),
    ),
    ...[9, 100, 0xffff].map((command) =>
      row(
        'Error values',
        'SHOULD',
        `unknown command ${command} is EINVAL`,
        inStep([request({ command, length: 512 }), answer([EINVAL])]),
      ),
    ),
    row(
      'NBD_CMD_CACHE',
      'SHOULD',
      'it is no reason to drop',
      inStep([request({ command: 5, length: 512 }), answer([0, EINVAL])]),
    ),
    row(
      'NBD_CMD_BLOCK_STATUS',
      'SHOULD',
      'without a context it is EINVAL',
      inStep([request({ command: BLOCK_STATUS, length: 512 }), answer([EINVAL])]),
    ),
    row('NBD_CMD_DISC', 'MUST', 'it has no reply, and the connection is closed', [
      request({ command: DISC }),
      { closes: true },
    ]),
    row('NBD_CMD_DISC', 'MUST', 'what was asked before is answered first', [
      request({ command: READ, length: 512 }),
      request({ command: DISC }),
      answer([0], { dataBytes: 512 }),
      { closes: true },
    ]),
    row(
      'Terminating the transmission phase',
      'SHOULD',
      'a closed sending side is answered to its end',
      [
        request({ command: READ, length: 512 }),
        { end: true },
        answer([0], { dataBytes: 512 }),
        { closes: true },
      ],
    ),
    row('Request message', 'MUST', 'a wrong magic drops the connection', [
      { send: `25609514 0000 0000 ${COOKIE} 0000000000000000 00000010` },
      { closes: true, ignoring: true },
    ]),
  ];
}
