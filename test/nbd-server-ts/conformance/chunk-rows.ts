// The conformance table, third part: rules about structured replies and extended headers.

import { hexNumber } from '../support/hex.ts';
import type { Row, Step, Target } from './dialogue.ts';
import {
  answer,
  BLOCK_STATUS,
  COOKIE,
  EINVAL,
  extended,
  inStep,
  READ,
  request,
  row,
  TRIM,
  WRITE,
} from './transmission-steps.ts';

/** Rows about replies in chunks. */
export function chunkRows({ sizeBytes }: Target): Row[] {
  return [...structuredRows(sizeBytes), ...extendedRows(sizeBytes)];
}

function structuredRows(end: number): Row[] {
  return [
    row(
      'Structured replies',
      'MUST',
      'READ is answered with chunks',
      inStep([
        request({ command: WRITE, offset: 4096, length: 4, data: 'deadbeef' }),
        answer([0]),
        request({ command: READ, offset: 4096, length: 4 }),
        answer([0], { data: 'deadbeef', form: 'structured' }),
      ]),
      ['structured'],
    ),
    row(
      'Structured replies',
      'MUST',
      'a failed READ is answered with chunks too',
      inStep([
        request({ command: READ, offset: end, length: 1 }),
        answer([EINVAL], { form: 'structured' }),
      ]),
      ['structured'],
    ),
    row(
      'NBD_CMD_READ',
      'MUST',
      'DF up to 65536 bytes gives one data chunk',
      [
        request({ command: READ, flags: 4, length: 65536 }),
        { expect: `668e33ef 000. 0001 ${COOKIE} 00010008 ${hexNumber(0, 8)}` },
      ],
      ['structured'],
    ),
    row(
      'NBD_CMD_BLOCK_STATUS',
      'MUST',
      'it has one chunk with at least one extent',
      [
        request({ command: BLOCK_STATUS, flags: 8, length: 4096 }),
        { expect: `668e33ef 0001 0005 ${COOKIE} 0000000c ........ 0000.... 0000000.` },
      ],
      ['structured', 'contexts'],
    ),
    row(
      'NBD_CMD_BLOCK_STATUS',
      'SHOULD',
      'past the end it is EINVAL',
      inStep([request({ command: BLOCK_STATUS, offset: end - 1, length: 2 }), answer([EINVAL])]),
      ['structured', 'contexts'],
    ),
    row(
      'NBD_CMD_BLOCK_STATUS',
      'SHOULD',
      'structured but without a context it is EINVAL',
      inStep([request({ command: BLOCK_STATUS, length: 512 }), answer([EINVAL])]),
      ['structured'],
    ),
  ];
}

function extendedRows(end: number): Row[] {
  const error = (offset: string): Step => ({
    expect: `6e8a278c 0001 8001 ${COOKIE} ${offset} 00000000`,
  });
  return [
    row(
      'Extended headers',
      'MUST',
      'READ is answered with an extended chunk of its offset',
      [
        extended({ command: READ, offset: 512, length: 4 }),
        { expect: `6e8a278c 0001 0001 ${COOKIE} ${hexNumber(512, 8)} ${hexNumber(12, 8)}` },
        { expect: `${hexNumber(512, 8)} ........` },
      ],
      ['extended'],
    ),
    row(
      'Extended headers',
      'MUST',
      'success without data is an extended chunk too',
      [
        extended({ command: WRITE, flags: 0x20, offset: 512, length: 2, data: "'ab'" }),
        { expect: `6e8a278c 0001 0000 ${COOKIE} ${hexNumber(512, 8)} ${hexNumber(0, 8)}` },
      ],
      ['extended'],
    ),
    row(
      'Extended headers',
      'MUST',
      'an error repeats the offset, whatever it is',
      [extended({ command: READ, offset: 2n ** 64n - 1n, length: 1 }), error('ffffffffffffffff')],
      ['extended'],
    ),
    row(
      'Extended headers',
      'SHOULD',
      'a payload that nobody asked for is read away: EINVAL',
      [
        extended({ command: TRIM, flags: 0x20, length: 4, data: '01020304' }),
        error(hexNumber(0, 8)),
      ],
      ['extended'],
    ),
    row(
      'NBD_CMD_BLOCK_STATUS',
      'MUST',
      'its chunk has extents of 64 bits',
      [
        extended({ command: BLOCK_STATUS, flags: 8, length: end }),
        {
          expect: `6e8a278c 0001 0006 ${COOKIE} ${hexNumber(0, 8)} ${hexNumber(24, 8)}
          ........ 00000001 ${'..'.repeat(8)} 000000000000000.`,
        },
      ],
      ['extended', 'contexts'],
    ),
  ];
}
